"""Contract, point 6: empty batches, 1×1 maps, NaN and infinity, and autocast."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.cases import all_cases, built
from tests.mm.norm_layers import (
    all_types,
    assert_unchanged,
    buffers_of,
    build,
    has_counted,
    own_layers,
    randomize,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@all_cases
@pytest.mark.parametrize('shape', [(0, 4), (0, 4, 7, 7), (0, 4, 1, 1)])
def test_empty_batch(case, shape):
    layer = built(case, 4).train()
    before = buffers_of(layer)
    x = torch.zeros(shape, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        y = layer(x)
        y.sum().backward()
    assert y.shape == x.grad.shape == shape
    for name, parameter in layer.named_parameters():  # zero, not None: DDP waits for each
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name
    assert_unchanged(layer, before)


@all_cases
def test_a_layer_that_saw_an_empty_batch_can_go_on_before_the_backward(case):
    """A head shared by pyramid levels, one of them without RoIs."""
    layer, alone = built(case, 4).train(), built(case, 4).train()
    x = random(2, 4, 3, 3)
    (layer(torch.zeros(0, 4, 3, 3)).sum() + layer(x).square().sum()).backward()
    alone(x).square().sum().backward()
    for (name, ours), theirs in zip(layer.named_parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


@all_cases
def test_evaluation_then_training_before_one_backward(case):
    """Two passes, one loss: what ``nn.BatchNorm2d`` allows too."""
    layer = built(case, 4)
    x = random(2, 4, 3, 3)
    in_eval, in_train = layer.eval()(x), layer.train()(x)
    (in_eval + in_train).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def bbox_head(norm_cfg):
    cfg = {
        'type': 'Shared4Conv1FCBBoxHead',
        'in_channels': 8,
        'conv_out_channels': 8,
        'fc_out_channels': 16,
        'num_classes': 3,
        'norm_cfg': norm_cfg,
        'bbox_coder': {'type': 'DeltaXYWHBBoxCoder', 'target_stds': [0.1, 0.1, 0.2, 0.2]},
        'loss_cls': {'type': 'CrossEntropyLoss'},
        'loss_bbox': {'type': 'L1Loss'},
    }
    return randomize(build(cfg, 'mmdet'))


@all_types
def test_bbox_head_without_rois(norm_type):
    head = bbox_head({'type': norm_type})
    assert len(own_layers(head)) == 4
    before = buffers_of(head)
    scores, boxes = head(torch.zeros(0, 8, 7, 7))
    assert scores.shape == (0, 4)
    assert boxes.shape == (0, 12)
    (scores.sum() + boxes.sum()).backward()
    for name, parameter in head.named_parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name
    assert_unchanged(head, before)


@all_types
def test_bbox_head_learns_again_after_a_step_without_rois(norm_type):
    head, other = bbox_head({'type': norm_type}), bbox_head({'type': norm_type})
    other.load_state_dict(head.state_dict())
    head(torch.zeros(0, 8, 7, 7))
    x = random(5, 8, 7, 7)
    assert torch.equal(head(x)[0], other(x)[0])
    assert all(has_counted(layer, 1) for layer in own_layers(head).values())


def psp_head(norm_cfg):
    cfg = {
        'type': 'PSPHead',
        'in_channels': 8,
        'channels': 8,
        'num_classes': 3,
        'norm_cfg': norm_cfg,
        'align_corners': False,
    }
    return randomize(build(cfg, 'mmseg'))


@pytest.mark.parametrize('batch', [1, 2])
@all_types
def test_pyramid_pooling_to_one_pixel(norm_type, batch):
    head = psp_head({'type': norm_type})
    x = random(batch, 8, 12, 12).requires_grad_()
    y = head([x])
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    for name, parameter in head.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    pixels = {name: layer for name, layer in own_layers(head).items() if '.0.1.' in name}
    assert list(pixels) == ['psp_modules.0.1.bn']  # pools to 1×1
    for name, layer in own_layers(head).items():
        for value in layer.buffers():
            assert torch.isfinite(value).all(), name
        # One value per channel has no variance: nothing to record, but for PN and MABN.
        pooled = layer.tracking(random(1, 8, 1, 1)).pooled
        recorded = 0 if batch == 1 and name in pixels and not pooled else 1
        assert has_counted(layer, recorded), name


def test_pyramid_pooling_of_one_image_is_an_error_with_batch_norm():
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        psp_head({'type': 'BN'})([random(1, 8, 12, 12)])


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
@all_cases
def test_bad_values_propagate_and_are_not_recorded(case, bad):
    layer = built(case, 4).train()
    before = buffers_of(layer)
    x = random(3, 4, 5, 5)
    x[1, 3, 2, 2] = bad  # the last channel: under batch norm in IBN too, if any is
    x.requires_grad_()
    y = layer(x)
    assert torch.isnan(y[1, 3]).all()
    y.square().sum().backward()
    assert not torch.isfinite(x.grad[1, 3]).any()
    assert not torch.isfinite(layer.weight.grad[3])
    assert_unchanged(layer, before)


def test_bad_values_spread_as_far_as_the_statistics():
    """In batch norm over the channel, as in the native one; in SN over the whole batch."""
    x = random(3, 4, 5, 5)
    x[1, 3, 2, 2] = float('nan')
    spread = {}
    for name, norm_cfg in {
        'native': {'type': 'BN'},
        'ibn': {'type': 'IBN', 'ratio': 0.0},
        'instance': {'type': 'IBN', 'ratio': 1.0},
    }.items():
        layer = build(dict(**norm_cfg, num_features=4), 'mmdet').train()
        spread[name] = torch.isnan(layer(x)).flatten(2).all(2)
    assert torch.equal(spread['ibn'], spread['native'])
    assert spread['native'].sum() == 3
    assert spread['instance'].nonzero().tolist() == [[1, 3]]


@all_cases
def test_training_goes_on_after_a_bad_batch(case):
    layer, other = built(case, 4).train(), built(case, 4).train()
    layer(torch.full((2, 4, 5, 5), float('inf')))
    x = random(2, 4, 5, 5)
    assert torch.equal(layer(x), other(x))
    assert_unchanged(layer, buffers_of(other))
    assert torch.equal(layer.eval()(x), other.eval()(x))


class NoHostSync(TorchDispatchMode):
    """Fails on operators that wait for the device: reading a value, or a size from values."""

    syncing = ('_local_scalar_dense', 'nonzero', 'is_nonzero', 'equal', 'masked_select', 'unique')

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in self.syncing, func
        return func(*args, **(kwargs or {}))


def test_the_guard_sees_a_host_synchronization():
    with NoHostSync(), pytest.raises(AssertionError, match='_local_scalar_dense'):
        bool(torch.ones(3).isfinite().all())


@pytest.mark.parametrize('training', [True, False])
@all_cases
def test_nothing_waits_for_the_device(case, training):
    layer = built(case, 4).train(training)
    x = random(2, 4, 5, 5).requires_grad_()
    with NoHostSync():
        layer(x).square().sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize('training', [True, False])
@all_cases
def test_autocast_keeps_the_dtype_of_the_convolution(case, training):
    layer = built(case, 4).train(training)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), layer)
    x = random(2, 3, 9, 9).requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        after_conv = net[0](x)
        y = layer(after_conv)
        assert after_conv.dtype == y.dtype == torch.bfloat16
        assert layer(after_conv.float()).dtype == torch.float32
    y.float().square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all(), name
    for name, buffer in layer.named_buffers():
        assert buffer.dtype in (torch.float32, torch.int64), name
