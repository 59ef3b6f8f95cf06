"""CBN finds the convolution before it, and is told where there is none."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from normplug import CBN, KN, link_kalman
from normplug.kalman import SharedLayerError

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def conv(c_in, c_out):
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def cbn(channels):
    return CBN(channels, burnin=0)


def reports(net, x=IMAGES):
    return {report.name: report for report in link_kalman(net, lambda: net(x))}


def test_what_is_found():
    net = nn.Sequential(conv(3, 4), cbn(4), nn.ReLU(), nn.Sequential(conv(4, 4), cbn(4)))
    found = reports(net)
    assert [str(report) for report in found.values()] == ['1 ← 0', '3.1 ← 3.0']
    net(IMAGES).sum().backward()
    (entry,) = net[3][1].history.entries
    assert torch.equal(entry.weight, net[3][0].weight.flatten(1))


def test_beside_kn():
    """Each in its own way, in one pass, and in the order of the model."""
    net = nn.Sequential(conv(3, 4), KN(4), conv(4, 4), cbn(4), conv(4, 4), KN(4))
    found = reports(net)
    assert list(found) == ['1', '3', '5']
    assert found['3'].predecessors == ('2',)
    assert found['1'].reason
    assert found['5'].reason  # the path of states ends at the CBN
    assert net(IMAGES).isfinite().all()


class Halved(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 0.5


class InPlace(nn.Module):
    def forward(self, x):
        return x.add_(1)


@pytest.mark.parametrize(
    'before',
    [
        lambda: nn.ReLU(),
        lambda: nn.Sequential(conv(3, 3), nn.ReLU()),
        lambda: nn.Sequential(conv(3, 3), nn.ReLU(inplace=True)),
        lambda: nn.Sequential(conv(3, 3), InPlace()),
        lambda: nn.ConvTranspose2d(3, 3, 3),
        lambda: nn.Conv2d(3, 3, 3, padding=1, padding_mode='circular'),
        lambda: weight_norm(conv(3, 3)),
        lambda: Halved(3, 3, 3),
    ],
)
def test_without_a_convolution_it_is_a_batch_norm(before):
    net = nn.Sequential(before(), cbn(3))
    (report,) = reports(net).values()
    assert str(report) == (
        '1: plain batch norm, its input is not the output itself of a convolution whose weight is '
        'a parameter'
    )
    native = copy.deepcopy(net)
    native[1] = nn.BatchNorm2d(3)
    for _ in range(2):
        torch.testing.assert_close(net(IMAGES), native(IMAGES))
    assert net[1].state_dict().keys() == native[1].state_dict().keys()


def test_a_layer_with_code_of_its_own():
    class Rectifying(CBN):
        def forward(self, x):
            return super().forward(x).relu()

    (report,) = reports(nn.Sequential(conv(3, 4), Rectifying(4))).values()
    assert report.reason == 'Rectifying has a forward of its own'


def test_a_layer_that_does_not_run():
    net = nn.Sequential(conv(3, 4), cbn(4))
    net[1].unused = cbn(4)
    assert reports(net)['1.unused'].reason == 'it did not run in the forward that was followed'


class Levels(nn.Module):
    """A head over two levels, with shared convolutions; norms are shared if there is one."""

    def __init__(self, *norms):
        super().__init__()
        self.conv, self.norms = conv(3, 4), nn.ModuleList(norms)

    def forward(self, x):
        levels = x, x[..., ::2, ::2] * 2
        return [self.norms[i % len(self.norms)](self.conv(level)) for i, level in enumerate(levels)]


def test_a_layer_shared_over_levels_is_refused_by_name():
    head = Levels(cbn(4))
    message = r'norms\.0: this CBN runs several times in a forward.*each level a norm of its own'
    with pytest.raises(SharedLayerError, match=message):
        reports(head)
    assert head.norms[0].link is None
    head.norms[0] = CBN(4, frozen=True)  # which remembers nothing
    reports(head)
    head.norms[0] = cbn(4).eval()
    reports(head)


def test_levels_with_norms_of_their_own():
    """A convolution that is called for each of them."""
    head = Levels(cbn(4), cbn(4))
    assert [str(report) for report in reports(head).values()] == [
        'norms.0 ← conv',
        'norms.1 ← conv',
    ]
    nets = [nn.Sequential(copy.deepcopy(head.conv), copy.deepcopy(norm)) for norm in head.norms]
    for net in nets:
        reports(net)
    for seed in range(3):
        x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        got = head(x)
        want = [nets[0](x), nets[1](x[..., ::2, ::2] * 2)]
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        with torch.no_grad():
            for module in (head.conv, nets[0][0], nets[1][0]):
                module.weight.mul_(0.9)
    assert [len(norm.history.entries) for norm in head.norms] == [3, 3]


def test_a_detectors_neck_and_head():
    """FPN, and a head whose levels share convolutions but no norms."""
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS

    own = dict(norm_cfg=dict(type='CBN'))
    neck = dict(type='FPN', in_channels=[3, 3], out_channels=4, num_outs=2)
    head = dict(type='RetinaSepBNHead', num_classes=2, in_channels=4, feat_channels=4, num_ins=2)
    net = nn.Sequential(MODELS.build({**neck, **own}), MODELS.build({**head, **own}))
    found = reports(net, (IMAGES, IMAGES[..., :3, :3]))
    assert len(found) == 4 + 2 * 2 * 4
    assert not any(report.reason for report in found.values())
    assert str(found['1.cls_convs.1.2.bn']) == '1.cls_convs.1.2.bn ← 1.cls_convs.0.2.conv'


def test_never_linked():
    net = nn.Sequential(conv(3, 4), cbn(4))
    with pytest.raises(ValueError, match=r"type='CBN'.*never linked.*KalmanLinkHook"):
        net(IMAGES)
    net.eval()(IMAGES)


def test_a_replaced_convolution():
    net = nn.Sequential(conv(3, 4), cbn(4))
    reports(net)
    old, net[0] = net[0], conv(3, 4)
    message = 'CBN layer 1 was linked to 0, but its input is not what that has just given'
    with pytest.raises(RuntimeError, match=message):
        net(IMAGES)
    old(IMAGES)
    with pytest.raises(RuntimeError, match=message):
        net(IMAGES)
    reports(net)
    net(IMAGES)
    assert not old._forward_hooks  # linking again removes the hooks of before


def test_a_change_between_since_it_was_linked():
    net = nn.Sequential(conv(3, 4), nn.Identity(), cbn(4))
    reports(net)
    net(IMAGES)
    for between in (nn.ReLU(), InPlace()):
        net[1] = between
        with pytest.raises(RuntimeError, match='something between them changes the tensor'):
            net(IMAGES)


def test_no_input_is_held_after_the_forward():
    net = nn.Sequential(conv(3, 4), cbn(4))
    reports(net)
    for mode in (True, False):
        net.train(mode)(IMAGES)
        assert net[1].link._calls._last is None


def test_copies_of_a_linked_model_have_idle_hooks():
    net = nn.Sequential(conv(3, 4), cbn(4))
    reports(net)
    twin = copy.deepcopy(net)
    assert twin[1].link is None
    reports(twin)
    twin(IMAGES)
    net(IMAGES)
    assert len(net[1].history.entries) == len(twin[1].history.entries) == 1


def test_a_failed_linking_is_none():
    net = nn.Sequential(conv(3, 4), cbn(4))
    with pytest.raises(RuntimeError):
        link_kalman(net, lambda: net(IMAGES[:, :2]))
    with pytest.raises(ValueError, match='never linked'):
        net(IMAGES)
