"""Which norm becomes what, and is folded where: decided by what really flows."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from normplug.deploy.dataflow import record
from normplug.deploy.plan import make_plan
from normplug.norms import (
    BRN,
    CBN,
    GW,
    IBN,
    KN,
    PN,
    SN,
    SSN,
    SW,
    GhostBN,
    IterNorm,
    PortableSyncBN,
    SyncPN,
)
from tests.cases import random_input, ssn

ConvAWS2d = pytest.importorskip('mmcv.cnn').ConvAWS2d


class Net(nn.Module):
    """Two convolutions, two norms; a subclass says how they are connected."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)


class Crossed(Net):
    def forward(self, x):
        return self.bn2(self.conv1(x)) + self.bn1(self.conv2(x))


class AddedAgain(Net):
    def forward(self, x):
        y = self.conv1(x)
        return self.bn1(y) + y, self.bn2(self.conv2(x))


class ReadThroughAView(Net):
    def forward(self, x):
        y = self.conv1(x)
        return self.bn1(y) + y.flatten(2).mean(-1)[..., None, None], self.bn2(self.conv2(x))


class Returned(Net):
    def forward(self, x):
        y = self.conv1(x)
        return {'raw': y, 'y': [self.bn1(y), self.bn2(self.conv2(x))]}


class SharedByTwoNorms(Net):
    def forward(self, x):
        return self.bn1(self.conv1(x)), self.bn1(self.conv1(2 * x)), self.bn2(self.conv1(x))


class SometimesWithoutNorm(Net):
    def forward(self, x):
        return self.bn1(self.conv1(x)), self.conv1(2 * x).relu(), self.bn2(self.conv2(x))


class NormOfTwo(Net):
    def forward(self, x):
        return self.bn1(self.conv1(x)), self.bn1(self.conv2(x))


class ChangedInPlace(Net):
    def forward(self, x):
        return self.bn1(self.conv1(x).mul_(2)), self.bn2(self.conv2(x))


class WeightReadElsewhere(Net):
    def forward(self, x):
        y = self.bn1(self.conv1(x)) + F.conv2d(x, self.conv1.weight)
        return y, self.bn2(self.conv2(x))


class TiedWeight(Net):
    def __init__(self):
        super().__init__()
        self.conv3 = nn.Conv2d(3, 4, 3)
        self.conv3.weight = self.conv1.weight

    def forward(self, x):
        return self.bn1(self.conv1(x)), self.conv3(x), self.bn2(self.conv2(x))


class Reparametrized(Net):
    def __init__(self):
        super().__init__()
        parametrizations.weight_norm(self.conv1)

    def forward(self, x):
        return self.bn1(self.conv1(x)), self.bn2(self.conv2(x))


class Straight(Net):
    def forward(self, x):
        return self.bn1(self.conv1(x)), self.bn2(self.conv2(x))


class Activated(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input).relu()


class HalvedBN(PortableSyncBN):
    def rule(self, x):
        return lambda *args: [t / 2 for t in PortableSyncBN.rule(self, x)(*args)]


def with_conv1(conv):
    net = Straight()
    net.conv1 = conv
    return net


def with_bn1(norm):
    net = Straight()
    net.bn1 = norm
    return net


def with_hook(name):
    net = Straight()
    net.get_submodule(name).register_forward_hook(lambda layer, args, y: y.relu())
    return net


def own_forward(layer):
    layer.forward = lambda input: type(layer).forward(layer, input).relu()
    return layer


class KeptInAList(Straight):
    def __init__(self):
        super().__init__()
        self.norms = [self.bn1]


def with_shared_gamma():
    net = with_bn1(PortableSyncBN(4))
    net.scale = net.bn1.weight
    return net


class NormFirst(Net):
    def __init__(self):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.conv1(self.bn1(x)), self.bn2(self.conv2(x))


class BatchStatistics(Net):
    def __init__(self):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x):
        return self.bn1(self.conv1(x)), self.bn2(self.conv2(x))


def hooks(net):
    return [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in net.modules()]


def plan_of(net, *must_fold, shape=(2, 3, 8, 9)):
    net.eval()
    x = random_input(shape)
    before = hooks(net)
    with torch.no_grad():
        flow, outputs = record(net, lambda: net(x))
    assert hooks(net) == before
    assert outputs is not None
    return make_plan(net, flow, must_fold)


def test_by_what_flows_not_by_order():
    assert plan_of(Crossed()).folded == {'bn1': 'conv2', 'bn2': 'conv1'}


@pytest.mark.parametrize(
    ('build', 'reason'),
    [
        (AddedAgain, 'used by aten.add.Tensor too'),
        (ReadThroughAView, 'used by aten.view.default too'),
        (Returned, 'used by an output of the model too'),
        (SometimesWithoutNorm, 'used by aten.relu.default too'),
        (ChangedInPlace, 'used by aten.mul_.Tensor too'),
        (WeightReadElsewhere, "the convolution's weight is used elsewhere too"),
        (TiedWeight, "the convolution's weight is used elsewhere too"),
        (Reparametrized, 'makes its weight anew at each call'),
        (lambda: with_conv1(ConvAWS2d(3, 4, 3)), 'ConvAWS2d has a forward of its own'),
        (lambda: with_conv1(weight_norm(nn.Conv2d(3, 4, 3))), 'Conv2d makes its weight anew'),
        (lambda: with_conv1(own_forward(nn.Conv2d(3, 4, 3))), 'set on the instance'),
        (lambda: with_hook('conv1'), 'Conv2d has forward hooks'),
        (lambda: with_hook('bn1'), 'it has forward hooks'),
        (lambda: with_bn1(Activated(4)), 'which has a forward of its own'),
        (lambda: with_bn1(own_forward(nn.BatchNorm2d(4))), 'set on the instance'),
        (lambda: with_bn1(HalvedBN(4)), 'which has a rule of its own'),
        (KeptInAList, 'which is kept in norms too'),
        (with_shared_gamma, 'which shares its weight with scale'),
        (NormFirst, 'its input is not the output of a convolution'),
        (BatchStatistics, 'without weights or running statistics'),
    ],
)
def test_what_cannot_be_folded(build, reason):
    plan = plan_of(build())
    assert plan.folded == {'bn2': 'conv2'}
    assert list(plan.kept) == ['bn1']
    assert reason in plan.kept['bn1']
    with pytest.raises(ValueError, match=r'--fold bn\*: bn1 cannot be folded'):
        plan_of(build(), 'bn*')


def test_a_convolution_of_two_norms():
    plan = plan_of(SharedByTwoNorms())
    assert not plan.folded
    assert set(plan.kept) == {'bn1', 'bn2'}
    assert 'BatchNorm2d' in plan.kept['bn1']


def test_a_norm_of_two_convolutions():
    plan = plan_of(NormOfTwo())
    assert not plan.folded
    assert 'the outputs of several layers' in plan.kept['bn1']
    assert 'not part of the inference' in plan.kept['bn2']


def test_calls_by_keyword():
    class ByKeyword(Net):
        def forward(self, x):
            return self.bn1(input=self.conv1(input=x))

    assert plan_of(ByKeyword()).folded == {'bn1': 'conv1'}


def test_a_shared_pair_is_folded():
    class Pyramid(Net):
        def forward(self, x):
            return [self.bn1(self.conv1(level)) for level in (x, 2 * x)]

    assert plan_of(Pyramid()).folded == {'bn1': 'conv1'}


def one_hot(name):
    return [float(name == other) for other in ('in', 'ln', 'bn')]


def decided(mean, var, **options):
    layer = SSN(4, eps=1e-3, **options)
    layer.mean_choice.copy_(torch.tensor(one_hot(mean)))
    layer.var_choice.copy_(torch.tensor(one_hot(var)))
    return layer


def only_of_batch(layer, means_too=True):
    """An SW that shares its ratios between BW and, of type 5, BN."""
    for logits in layer.ratio_params()[0 if means_too else 1 :]:
        logits.data[[source[0] == 'i' or source == 'ln' for source in layer.normalizers]] = -1e3
    return layer


@pytest.mark.parametrize(
    'layer', [IterNorm(4), only_of_batch(SW(4)), only_of_batch(SW(4, sw_type=5))]
)
def test_whitening_that_is_one_map_is_folded(layer):
    plan = plan_of(nn.Sequential(nn.Conv2d(3, 4, 1), layer))
    assert plan.folded == {'1': '0'}
    plan = plan_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), layer))
    assert 'its input is not the output of a convolution' in plan.kept['2']


@pytest.mark.parametrize(
    ('channels', 'groups', 'folded'), [(2, 2, True), (4, 2, False), (2, 4, False)]
)
def test_whitening_is_folded_within_the_groups_of_a_convolution(channels, groups, folded):
    conv = nn.Conv2d(4, 4, 1, groups=groups)
    plan = plan_of(nn.Sequential(conv, IterNorm(4, num_channels=channels)), shape=(2, 4, 3, 3))
    assert ('1' in plan.folded) == folded
    assert folded or f"convolution's {groups} groups" in plan.kept['1']


@pytest.mark.parametrize(
    ('layer', 'norm_cfg'),
    [
        (decided('in', 'in'), dict(type='IN', affine=True, eps=1e-3)),
        (decided('ln', 'ln'), dict(type='GN', num_groups=1, eps=1e-3)),
        (decided('bn', 'bn'), dict(type='BN', eps=1e-3)),
        (decided('bn', 'bn', released_statistics=True), dict(type='BN', eps=1e-3)),
        (PortableSyncBN(4), dict(type='BN', eps=1e-5)),
        (GhostBN(4, virtual_batch_size=2), dict(type='BN', eps=1e-5)),
        (KN(4, transition='linear', gain='learned'), dict(type='BN', eps=1e-5)),
        (PN(4), dict(type='BN', eps=1e-5)),
        (BRN(4, eps=1e-3), dict(type='BN', eps=1e-3)),
        (CBN(4, eps=1e-3), dict(type='BN', eps=1e-3)),
        (SyncPN(4, noise='var', samples=2, eps=1e-3), dict(type='BN', eps=1e-3)),
    ],
)
def test_what_becomes_native(layer, norm_cfg):
    plan = plan_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), layer))
    assert plan.norm_cfgs == {'2': norm_cfg}


@pytest.mark.parametrize(
    ('layer', 'reason'),
    [
        (decided('in', 'bn'), 'mixed (mean by in, variance by bn)'),
        (ssn(4, 0.4), 'undecided'),
        (ssn(4, 0.4, mean_choice=[1, 0, 0]), 'undecided'),
        (decided('in', 'in', released_statistics=True), 'released_statistics=True'),
        (CBN(4, eps_inside=False), 'adds eps outside of the root'),
        (SN(4), 'no native layer'),
        (IBN(4), 'no native layer'),
        (GW(4), 'covariances of its own input'),
        (SW(4), 'covariances of its own input'),
        (only_of_batch(SW(4, sw_type=5), means_too=False), 'covariances of its own input'),
    ],
)
def test_what_stays(layer, reason):
    plan = plan_of(nn.Sequential(nn.Conv2d(3, 4, 1), layer))
    assert not plan.norm_cfgs
    assert not plan.folded
    assert reason in plan.kept['1']


def test_without_the_normalizers_that_a_layer_does_not_mix():
    layer = SSN(4, using_in=False)
    layer.mean_choice.copy_(torch.tensor([1.0, 0]))
    layer.var_choice.copy_(torch.tensor([1.0, 0]))
    assert plan_of(nn.Sequential(layer), shape=(2, 4, 3, 3)).norm_cfgs['0']['type'] == 'GN'


def test_instance_norm_of_single_pixels_stays():
    plan = plan_of(nn.Sequential(nn.AdaptiveAvgPool2d(1), decided('in', 'in')), shape=(2, 4, 3, 3))
    assert '1x1 maps' in plan.kept['1']


def test_a_pattern_that_matches_nothing():
    with pytest.raises(ValueError, match=r'--fold head\.\*: the model has no such norm layer'):
        plan_of(Crossed(), 'head.*')
