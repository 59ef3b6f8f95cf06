"""The noise over two ranks is that of one process, and the training that without the hook."""

import pytest
import torch

from tests.dist import noise_scenarios as scenarios


@pytest.mark.slow
def test_batches_of_both_ranks_count(two):
    first, second = two.run(scenarios.of_ranks)
    assert first == second
    want = scenarios.in_one_process()
    assert set(first) == set(want)
    assert first['sync.portable']['images'] == pytest.approx(4 / (1 / 6 + 1 / 6 + 1 / 6 + 1 / 2))
    for name, record in want.items():
        assert 'zeta' in record
        assert first[name] == pytest.approx(record), name


@pytest.mark.slow
@pytest.mark.parametrize(('norm', 'static'), [('SN', True), ('SyncSN', False)])
def test_training_is_the_same_to_the_last_bit(two, tmp_path, norm, static):
    hook = {'interval': 10, 'batches': 3}
    without = two.run(scenarios.train, tmp_path / 'without', norm, None, static)
    with_it = two.run(scenarios.train, tmp_path / 'with', norm, hook, static)
    for (state, nothing), (other, found) in zip(without, with_it, strict=True):
        assert nothing == {}
        assert list(found) == [0, 10, 12]
        assert found[12]['norm']['images'] == (4 if norm == 'SyncSN' else 2)
        assert all(torch.equal(value, other[name]) for name, value in state.items())
