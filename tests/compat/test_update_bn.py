"""torch's update_bn moves the statistics of our norms as it does those of batch norms."""

import inspect

import pytest
import torch
from torch import nn
from torch.optim import swa_utils
from torch.optim.swa_utils import AveragedModel, update_bn

from normplug import KN, SN, GhostBN, compat, link_kalman
from normplug.launch.portable_ddp import make_sync_bn_portable
from normplug.norms import SW, IterNorm
from tests.cases import all_cases, random_input

BATCHES = [random_input((2, 4, 3, 5), seed=seed) * 3 + 1 for seed in range(3)]


def by_channel(t):
    return t.view(1, -1, 1, 1)


@all_cases
def test_statistics_are_those_of_the_batches(case):
    layer, native = case.build(4), nn.BatchNorm2d(4)
    momentum = layer.momentum
    layer(BATCHES[0] * 7)  # forgotten
    others = {n: v.clone() for n, v in layer.state_dict().items() if 'running' not in n}
    layer.eval()
    update_bn(BATCHES, layer)
    update_bn(BATCHES, native)
    if not layer.centred:  # MABN: zeros and mean squares; it sees the batches
        native.running_mean = torch.zeros(4)
        native.running_var = sum(x.square().mean((0, 2, 3)) for x in BATCHES) / 3
        del others['square_window']
    elif layer.batch_from == 0 and layer.tracking(BATCHES[0]).pooled:  # PN: of all values
        squares = [(x - by_channel(native.running_mean)).square().mean((0, 2, 3)) for x in BATCHES]
        native.running_var = sum(squares) / 3
    assert not layer.training
    assert layer.momentum == momentum
    if layer.batch_from is not None:
        own = slice(layer.batch_from, None)
        torch.testing.assert_close(layer.running_mean, native.running_mean[own])
        if hasattr(layer, 'running_var') and not getattr(layer, 'released_statistics', False):
            torch.testing.assert_close(layer.running_var, native.running_var[own])
        assert layer.num_batches_tracked == 3
        others.pop('num_batches_tracked')
    for name, value in others.items():
        assert torch.equal(layer.state_dict()[name], value), name


@pytest.mark.parametrize('kind', [SW, IterNorm])
def test_running_matrices_are_the_average_of_those_of_the_batches(kind):
    layer, of_each = kind(4), []
    layer(BATCHES[0] * 7)  # forgotten
    update_bn(BATCHES, layer)
    for x in BATCHES:
        last = kind(4, momentum=1)
        last(x)
        of_each.append(getattr(last, kind.matrix_name))
    torch.testing.assert_close(getattr(layer, kind.matrix_name), sum(of_each) / 3)


def test_an_averaged_model_and_batch_norms_beside_ours():
    net = nn.Sequential(nn.Conv2d(4, 4, 1), SN(4), nn.BatchNorm2d(4), GhostBN(4))
    mean = AveragedModel(net)
    update_bn([(x, 'a label') for x in BATCHES], mean)
    for layer in mean.module[1:]:
        assert layer.num_batches_tracked == 3
        assert layer.running_mean.any()


def test_frozen_statistics_stay():
    layer = SN(4, frozen=True)
    layer.running_mean.fill_(3)
    update_bn(BATCHES, nn.Sequential(layer, nn.BatchNorm2d(4)))
    assert torch.equal(layer.running_mean, torch.full((4,), 3.0))


def test_a_converted_sync_bn():
    layer = nn.SyncBatchNorm(4)
    make_sync_bn_portable(layer)
    update_bn(BATCHES, layer)
    assert layer.num_batches_tracked == 3


def test_a_kn_that_is_a_copy_is_refused_before_its_statistics_are_lost():
    net = nn.Sequential(nn.Conv2d(4, 4, 1), KN(4))
    net[1].running_mean.fill_(3)
    with pytest.raises(ValueError, match=r'KN layer .* call normplug\.link_kalman'):
        update_bn(BATCHES, net)
    assert torch.equal(net[1].running_mean, torch.full((4,), 3.0))
    assert net[1].momentum == 0.1
    link_kalman(net, lambda: net(BATCHES[0]))
    update_bn(BATCHES, net)
    assert net[1].num_batches_tracked == 3


def test_torchs_function_is_torchs_and_installing_again_changes_nothing():
    before = swa_utils.isinstance
    compat.install()
    assert swa_utils.isinstance is before
    assert inspect.unwrap(swa_utils.update_bn).__code__.co_filename == swa_utils.__file__
    assert isinstance is not before  # in every other module, the builtin
    assert not isinstance(SN(4), nn.modules.batchnorm._BatchNorm)
    assert before(True, (int, str))
    assert not before('a', int)
    assert before(nn.BatchNorm2d(4), nn.modules.batchnorm._BatchNorm)


def test_a_model_without_norms_of_ours_gets_what_torch_gives(monkeypatch):
    nets = [nn.Sequential(nn.BatchNorm2d(4), nn.InstanceNorm2d(4)) for _ in range(2)]
    update_bn(BATCHES, nets[0])
    monkeypatch.delattr(swa_utils, 'isinstance')
    update_bn(BATCHES, nets[1])
    for ours, plain in zip(*(net.state_dict().values() for net in nets), strict=True):
        assert torch.equal(ours, plain)
