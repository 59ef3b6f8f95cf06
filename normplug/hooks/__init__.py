"""Hooks for mmengine's runner, one file a hook; registered by the import."""

from normplug.hooks.batch_noise import BatchNoiseHook
from normplug.hooks.brn_schedule import BRNScheduleHook
from normplug.hooks.gamma_decay import GammaDecayHook
from normplug.hooks.isw import ISWHook
from normplug.hooks.kalman_link import KalmanLinkHook
from normplug.hooks.nonfinite_loss import NonFiniteLossHook
from normplug.hooks.norm_memory import NormMemoryHook
from normplug.hooks.norm_ratio import NormRatioHook
from normplug.hooks.norm_report import NormReportHook
from normplug.hooks.population import PopulationHook
from normplug.hooks.precise_bn import BatchAverageHook, PreciseBNStatsHook
from normplug.hooks.ratio_grad_clip import RatioGradClipHook
from normplug.hooks.resumable_checkpoint import ResumableCheckpointHook
from normplug.hooks.sample_seed import SampleSeedHook
from normplug.hooks.ssn_radius import SSNRadiusHook
from normplug.hooks.sync_norm_stats import SyncNormStatsHook
from normplug.hooks.whitening import WhiteningHook

__all__ = [
    'BRNScheduleHook',
    'BatchAverageHook',
    'BatchNoiseHook',
    'GammaDecayHook',
    'ISWHook',
    'KalmanLinkHook',
    'NonFiniteLossHook',
    'NormMemoryHook',
    'NormRatioHook',
    'NormReportHook',
    'PopulationHook',
    'PreciseBNStatsHook',
    'RatioGradClipHook',
    'ResumableCheckpointHook',
    'SSNRadiusHook',
    'SampleSeedHook',
    'SyncNormStatsHook',
    'WhiteningHook',
]
