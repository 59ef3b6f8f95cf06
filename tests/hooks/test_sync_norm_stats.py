"""When SyncNormStatsHook acts. What it does to the ranks' statistics is in tests/dist."""

import pytest
from mmengine.hooks import CheckpointHook, SyncBuffersHook
from mmengine.registry import HOOKS
from mmengine.runner import get_priority
from torch import nn

from normplug.hooks import SyncNormStatsHook, sync_norm_stats

EVENTS = ('before_val', 'before_test', 'after_train_epoch')


class FakeRunner:
    def __init__(self, model):
        self.model = model
        self.hooks = []


@pytest.fixture
def synchronized(monkeypatch):
    """The models that were synchronized, in order."""
    models = []
    monkeypatch.setattr(sync_norm_stats, 'synchronize_running_stats', models.append)
    return models


@pytest.mark.parametrize('event', EVENTS)
def test_acts_at(synchronized, event):
    runner = FakeRunner(nn.BatchNorm2d(2))
    getattr(SyncNormStatsHook(), event)(runner)
    assert synchronized == [runner.model]


def test_acts_only_where_all_ranks_take_part():
    # mmengine calls before_save_checkpoint on rank 0 alone: a collective there would hang.
    assert set(SyncNormStatsHook().get_triggered_stages()) == set(EVENTS)


def test_before_the_hooks_that_use_the_statistics():
    ours = get_priority(SyncNormStatsHook.priority)
    assert ours < get_priority(SyncBuffersHook.priority)
    assert ours < get_priority(CheckpointHook.priority)


def test_registered_in_the_root():
    assert HOOKS.module_dict['SyncNormStatsHook'] is SyncNormStatsHook
