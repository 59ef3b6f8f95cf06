"""The bounds of BRN over a training, and what the hook refuses."""

import mmengine.runner.runner
import pytest

from normplug.errors import UnsuitableModelError
from normplug.hooks import BRNScheduleHook
from tests.hooks import tiny_training as tiny


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second


def runner_of(tmp_path, norm='BRN', **hook):
    cfg = tiny.config(tmp_path / 'work', hooks=())
    cfg.experiment_name = f'{tmp_path.name}-work'
    cfg.model.norm = norm
    cfg.custom_hooks = [{'type': 'BRNScheduleHook', **hook}]
    return tiny.build(cfg)


def test_the_papers_steps():
    """Of a run that is as long, and of one of a ninth."""
    hook = BRNScheduleHook()
    for iteration, bounds in (
        (0, (1, 0)),
        (5_000, (1, 0)),
        (15_000, (1 + 2 * 10 / 35, 2.5)),
        (25_000, (1 + 2 * 20 / 35, 5)),
        (40_000, (3, 5)),
        (89_999, (3, 5)),
    ):
        assert hook.bounds(iteration, 90_000) == pytest.approx(bounds)
        assert hook.bounds(iteration / 9, 10_000) == pytest.approx(bounds)
    as_they_are = BRNScheduleHook(length=None)
    assert as_they_are.bounds(15_000, 10) == pytest.approx((1 + 2 * 10 / 35, 2.5))


def test_all_is_reached_in_a_training(tmp_path):
    """24 iterations: from the 6th on to the 18th, and for d to the 12th."""
    scaled = {'begin': 10, 'r_end': 30, 'd_end': 20, 'length': 40}
    runner, seen = runner_of(tmp_path, **scaled), []
    layer = runner.model.norm
    layer.register_forward_pre_hook(
        lambda *_: seen.append((layer.r_max.item(), layer.d_max.item())) if layer.training else None
    )
    layer.d_max.fill_(1)  # as a checkpoint may have it
    runner.train()
    assert len(seen) == 24
    ramp = [min(max(i - 6, 0) / 12, 1) for i in range(24)]
    assert [r for r, _ in seen] == pytest.approx([1 + 2 * p for p in ramp])
    assert [d for _, d in seen] == pytest.approx([max(min(10 * p, 5), 1) for p in ramp])
    saved = tiny.load(tmp_path / 'work')['state_dict']
    assert saved['norm.r_max'] == 3
    assert saved['norm.d_max'] == 5


def test_no_brn(tmp_path):
    with pytest.raises(UnsuitableModelError, match='the model has no BRN that trains; remove'):
        runner_of(tmp_path, norm='SN').train()


@pytest.mark.parametrize(
    'wrong',
    [{'r_max': 0.5}, {'d_max': -1}, {'begin': -1}, {'r_end': 4_000}, {'d_end': 1.5}, {'length': 0}],
    ids=str,
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match=f'BRNScheduleHook: {next(iter(wrong))}'):
        BRNScheduleHook(**wrong)
