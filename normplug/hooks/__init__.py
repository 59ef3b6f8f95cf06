"""Hooks for mmengine's runner, one file a hook; registered by the import."""

from normplug.hooks.nonfinite_loss import NonFiniteLossHook
from normplug.hooks.norm_report import NormReportHook
from normplug.hooks.resumable_checkpoint import ResumableCheckpointHook
from normplug.hooks.sample_seed import SampleSeedHook
from normplug.hooks.sync_norm_stats import SyncNormStatsHook

__all__ = [
    'NonFiniteLossHook',
    'NormReportHook',
    'ResumableCheckpointHook',
    'SampleSeedHook',
    'SyncNormStatsHook',
]
