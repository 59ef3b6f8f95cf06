"""What a runner does around the model: averaged copies, and one process of DDP."""

import copy

import pytest
import torch
import torch.distributed as dist
from mmengine.model import ExponentialMovingAverage, MMDistributedDataParallel
from torch import nn

from normplug import NORMS
from tests.mm.norm_layers import (
    all_types,
    assert_unchanged,
    buffers_of,
    has_counted,
)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('frozen', [False, True])
@all_types
def test_a_moving_average_of_the_model_carries_the_running_statistics(norm_type, frozen):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), NORMS[norm_type](4, frozen=frozen)).train()
    average = ExponentialMovingAverage(net, momentum=0.1)
    net(random(2, 3, 9, 9))
    average.update_parameters(net)
    assert_unchanged(average.module, buffers_of(net))


@all_types
def test_a_deep_copy_is_independent(norm_type):
    layer = NORMS[norm_type](4).train()
    before, twin = buffers_of(layer), copy.deepcopy(layer)
    twin(random(2, 4, 5, 5))
    assert has_counted(twin, 1)
    assert_unchanged(layer, before)


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('frozen', [False, True])
@all_types
def test_distributed_training_finds_no_unused_parameters(norm_type, frozen, process_group):
    """Not even in a step whose batch is empty."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), NORMS[norm_type](4, frozen=frozen))
    ddp = MMDistributedDataParallel(net, find_unused_parameters=False).train()
    for batch in (2, 0, 2):  # DDP raises at the start of the step after one with unused ones
        ddp(random(batch, 3, 9, 9)).square().sum().backward()
    assert has_counted(net[1], 0 if frozen else 2)
