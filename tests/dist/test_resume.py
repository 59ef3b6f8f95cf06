"""Two ranks with random states of their own: saved, restored, and stopped together."""

from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from tests.dist import resume_scenarios as scenarios
from tests.hooks import tiny_training as tiny


@pytest.mark.slow
@pytest.mark.parametrize('by_epoch', [True, False])
def test_killed_and_resumed_is_the_same_to_the_last_bit(two, tmp_path, by_epoch):
    states = two.run(scenarios.train, tmp_path / 'alone', by_epoch)
    assert not torch.equal(states[0]['torch'], states[1]['torch'])
    # One rank is killed before an iteration, and with it the other.
    with pytest.raises(BrokenProcessPool):
        two.run(scenarios.train, tmp_path / 'killed', by_epoch, False, 8 if by_epoch else 14)
    saved = tiny.load(tmp_path / 'killed')['random_states']
    assert len(saved) == 2
    assert not torch.equal(saved[0]['torch'], saved[1]['torch'])
    again = two.run(scenarios.train, tmp_path / 'killed', by_epoch, True)
    tiny.assert_same_training(tiny.load(tmp_path / 'alone'), tiny.load(tmp_path / 'killed'))
    tiny.assert_equal(states, again, 'random states')


@pytest.mark.slow
def test_nan_on_one_rank_stops_both(two, tmp_path):
    first, second = two.run(scenarios.stop, tmp_path / 'stopped')
    assert first == second
    assert 'in iteration 3 ' in first
    assert 'It began in conv.1 (NaNOnRankOne): its inputs are finite' in first
    assert 'are NaN (rank 1). ' in first
