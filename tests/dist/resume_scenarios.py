"""Trainings that the ranks run together: killed and resumed, or stopped by NaN on one rank."""

import mmengine.runner.runner
import pytest
import torch.distributed as dist
from mmengine.registry import MODELS
from torch import nn

from normplug.hooks.nonfinite_loss import NonFiniteLossError
from normplug.random_state import get_random_state
from tests.hooks import tiny_training as tiny

mmengine.runner.runner.collect_env = dict  # asks compilers for a second


def config(work_dir, by_epoch=True, norm='SN'):
    cfg = tiny.config(work_dir, by_epoch)
    cfg.model.norm = norm
    cfg.launcher = 'pytorch'  # the process group is there
    cfg.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', 'device_ids': None}
    cfg.randomness = {'seed': 7, 'diff_rank_seed': True}
    return cfg


def train(work_dir, by_epoch, resume=False, kill_before=None):
    """Train; the random state that this rank ends with."""
    tiny.build(config(work_dir, by_epoch), resume, kill_before).train()
    return get_random_state()


@MODELS.register_module()
class NaNOnRankOne(nn.Module):
    """The identity; from the third pass on, NaN on rank 1."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return x * float('nan') if self.passes > 2 and dist.get_rank() == 1 else x


def stop(work_dir):
    """The message that this rank stops with. The layer after the NaN communicates."""
    cfg = config(work_dir, norm='SyncSN')
    cfg.custom_hooks = [{'type': 'NonFiniteLossHook'}]
    runner = tiny.build(cfg)
    model = runner.model.module
    model.conv = nn.Sequential(model.conv, NaNOnRankOne())
    with pytest.raises(NonFiniteLossError) as error:
        runner.train()
    return str(error.value)
