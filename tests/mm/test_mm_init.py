"""Contract, point 4: mm's weight initialization works on our layers as on batch norm."""

import copy

import pytest
import torch
from mmengine.model import BaseModule, constant_init
from torch import nn

from normplug import NORMS
from tests.mm.norm_layers import SCOPES, all_types, own_layers, randomize, resnet

ConvModule = pytest.importorskip('mmcv.cnn').ConvModule

all_frozen = pytest.mark.parametrize('frozen', [False, True])


@all_frozen
@all_types
def test_constant_init_sets_weight_and_bias_alone(norm_type, frozen):
    layer = randomize(NORMS[norm_type](4, frozen=frozen))
    before = copy.deepcopy(layer.state_dict())
    constant_init(layer, 0, bias=2)
    for name, value in layer.state_dict().items():
        expected = {'weight': torch.zeros(4), 'bias': torch.full((4,), 2.0)}
        assert torch.equal(value, expected.get(name, before[name])), name


@all_types
def test_conv_module_starts_its_norm_at_one_and_zero(norm_type):
    module = ConvModule(3, 4, 1, norm_cfg={'type': norm_type})
    randomize(module)
    module.init_weights()
    assert torch.equal(module.bn.weight, torch.ones(4))
    assert torch.equal(module.bn.bias, torch.zeros(4))


@pytest.mark.parametrize(
    ('norm_type', 'scope', 'frozen'),
    [
        *((norm_type, 'mmdet', False) for norm_type in sorted(NORMS)),
        *(('SN', scope, True) for scope in SCOPES),
    ],
)
def test_zero_init_residual(norm_type, scope, frozen):
    net = resnet({'type': norm_type, 'frozen': frozen}, scope, zero_init_residual=True)
    net.init_weights()
    for name, layer in own_layers(net).items():
        last_of_block = name.endswith('bn2')
        expected = torch.zeros_like if last_of_block else torch.ones_like
        assert torch.equal(layer.weight, expected(layer.weight)), name
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias)), name


class Net(BaseModule):
    def __init__(self, norm_type, init_cfg, **options):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = NORMS[norm_type](4, **options)


@pytest.mark.parametrize('base', [False, True])
@all_frozen
@all_types
def test_constant_init_cfg_by_layer_name(norm_type, base, frozen):
    layer = 'BaseNorm' if base else norm_type
    init_cfg = {'type': 'Constant', 'layer': layer, 'val': 0.5, 'bias': 0.25}
    net = Net(norm_type, init_cfg, frozen=frozen)
    others = {n: t.clone() for n, t in net.bn.state_dict().items()}
    net.init_weights()
    assert torch.equal(net.bn.weight, torch.full((4,), 0.5))
    assert torch.equal(net.bn.bias, torch.full((4,), 0.25))
    for name, value in net.bn.state_dict().items():
        if name not in ('weight', 'bias'):
            assert torch.equal(value, others[name]), name


@all_types
def test_init_cfg_of_other_norms_leaves_ours_alone(norm_type):
    net = Net(norm_type, {'type': 'Constant', 'layer': ['_BatchNorm', 'GroupNorm'], 'val': 0.5})
    net.init_weights()
    assert torch.equal(net.bn.weight, torch.ones(4))
