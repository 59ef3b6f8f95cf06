"""Synchronized statistics over two and three gloo processes."""

import pytest
import torch
from torch import nn

from normplug import PortableSyncBN, SyncIBN, SyncSN
from normplug.dist import group_reducer
from tests.cases import random_input
from tests.dist import model_scenarios, scenarios, whitening_scenarios

SYNCHRONIZED = (
    'sync_sn',
    'sync_ssn',
    'sync_ibn',
    'sync_pn',
    'sync_pn_drawn',
    'sync_brn',
    'sync_bcn',
    'sync_sw',
    'sync_iternorm',
    'portable_sync_bn',
)

all_types = pytest.mark.parametrize('name', SYNCHRONIZED)


def test_without_a_process_group_statistics_are_local():
    assert group_reducer() is None
    assert not any(norm(4).reducer() for norm in (SyncSN, SyncIBN, PortableSyncBN))


def test_portable_sync_bn_is_batch_norm_in_one_process():
    layer, native = PortableSyncBN(5).double(), nn.BatchNorm2d(5).double()
    native.load_state_dict(layer.state_dict())
    for seed in range(3):
        x = random_input((3, 5, 4, 3), torch.float64, seed)
        torch.testing.assert_close(layer(x), native(x))
    torch.testing.assert_close(layer.state_dict(), native.state_dict())
    torch.testing.assert_close(layer.eval()(x), native.eval()(x))


def test_released_statistics_of_single_values_are_refused():
    layer = SyncSN(4, released_statistics=True)
    with pytest.raises(ValueError, match=r"type='SyncSN'.*released_statistics .* type='SN'"):
        layer(torch.ones(3, 4))
    assert layer(torch.ones(3, 4, 2, 2)).shape == (3, 4, 2, 2)
    assert layer.eval()(torch.ones(3, 4)).shape == (3, 4)


@pytest.mark.parametrize('split', [(2, 1), (3, 0), (0, 3)], ids=str)
@all_types
def test_two_ranks_equal_one_process(two, name, split):
    two.run(scenarios.whole_batch, name, split)


def test_released_switchable_whitening(two):
    two.run(whitening_scenarios.released_sync_sw)


@pytest.mark.parametrize('split', [(2, 1), (3, 0)], ids=str)
@all_types
def test_gradients_of_gradients(two, name, split):
    two.run(scenarios.gradient_penalty, name, split)


@all_types
def test_large_maps(two, name):
    """Of which plain torch takes a block at a time."""
    two.run(scenarios.whole_batch, name, (2, 1), (80, 90))


@pytest.mark.slow
@all_types
def test_single_values(two, name):
    """(N, C) inputs."""
    two.run(scenarios.whole_batch, name, (3, 2), ())


@pytest.mark.parametrize('scenario', ['all_ranks_empty', 'input_gradient_on_one_rank_only'])
@all_types
def test_two_ranks(two, name, scenario):
    two.run(getattr(scenarios, scenario), name)


@pytest.mark.slow
@pytest.mark.parametrize('scenario', ['evaluation', 'non_finite_on_one_rank'])
@all_types
def test_more_of_two_ranks(two, name, scenario):
    two.run(getattr(scenarios, scenario), name)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['sync_ssn', 'sync_pn_drawn', 'sync_sw'])
def test_compiled(two, name):
    two.run(scenarios.compiled, name)


@pytest.mark.slow
@pytest.mark.parametrize('use_reentrant', [True, False])
@all_types
def test_checkpointed(two, name, use_reentrant):
    two.run(scenarios.recomputed, name, use_reentrant)


@pytest.mark.slow
@pytest.mark.parametrize(
    'scenario', ['distributed_data_parallel', 'portable_wrapper', 'sync_bn_in_a_config']
)
def test_networks_on_two_ranks(two, scenario):
    two.run(getattr(model_scenarios, scenario))


@pytest.mark.slow
@pytest.mark.parametrize('split', [(3, 1), (2, 0)], ids=str)
@pytest.mark.parametrize('norm', ['SyncSN', 'SyncIBN', 'PortableSyncBN', 'SyncBN'])
def test_backbone_and_fpn(two, norm, split):
    pytest.importorskip('mmdet')
    two.run(model_scenarios.backbone_and_fpn, norm, split)


@pytest.mark.slow
@pytest.mark.parametrize('split', [(2, 1, 3), (2, 0, 1), (0, 0, 3)], ids=str)
@all_types
def test_three_ranks_equal_one_process(three, name, split):
    three.run(scenarios.whole_batch, name, split)


@pytest.mark.slow
@all_types
def test_maps_of_different_size(three, name):
    whitens = name in ('sync_sw', 'sync_iternorm')
    own = whitening_scenarios if whitens else scenarios
    three.run(own.maps_of_different_size, name, [(2, 4, 3), (1, 5, 7), (3, 1, 2)])


@pytest.mark.slow
@pytest.mark.parametrize('split', [(2, 0, 1), (0, 3, 0), (1, 1, 1)], ids=str)
def test_a_sequence_of_layers(three, split):
    three.run(model_scenarios.sequence, split)


@pytest.mark.slow
def test_a_network_on_three_ranks(three):
    three.run(model_scenarios.distributed_data_parallel)


@pytest.mark.slow
def test_counts_beyond_float32(three):
    three.run(scenarios.counts_beyond_float32)


@pytest.mark.slow
@pytest.mark.parametrize('scenario', ['groups', 'averaged_buffers'])
@all_types
def test_three_ranks(three, name, scenario):
    three.run(getattr(scenarios, scenario), name)
