"""What KN launches outside of compiled steps, and what a new size of the images costs."""

import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from normplug import KN, link_kalman
from normplug.kalman import convolution
from normplug.kalman.elementwise import activated, largest
from normplug.ops import fused, stepped
from normplug.stats import Moments
from tests.outside_steps import OutsideSteps

MODULES = convolution, fused, sys.modules['normplug.ops.stepped']


class Bottleneck(nn.Module):
    """ResNet's, of torch's layers."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 1, bias=False), KN(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = KN(width)
        self.conv3, self.norm3 = nn.Conv2d(width, 4 * width, 1, bias=False), KN(4 * width)
        self.shortcut = nn.Identity()
        if channels != 4 * width:
            conv = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, KN(4 * width))

    def forward(self, x):
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        return (self.norm3(self.conv3(y)) + self.shortcut(x)).relu()


def resnet50(width=4):
    """With fewer channels."""
    layers = [nn.Conv2d(3, width, 7, 2, 3, bias=False), KN(width), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(channels, width * 2**stage, stride))
            channels = 4 * width * 2**stage
    return nn.Sequential(*layers)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    net = resnet50()
    reports = link_kalman(net, lambda: net(torch.randn(2, 3, 64, 64)))
    assert sum(bool(r.predecessors) for r in reports) == 52
    return net


def step(model, size):
    model(torch.randn(2, 3, *size)).square().mean().backward()


@pytest.mark.parametrize('size', [(64, 64), (96, 72)], ids=['known size', 'new size'])
def test_few_operations_run_outside_of_steps(model, size, monkeypatch):
    model.zero_grad()
    # KN's states are float64, and nothing else is.
    with OutsideSteps(torch.float64).counting(monkeypatch, *MODULES) as outside:
        step(model, size)
    assert outside.steps['_sums'] == 52
    assert outside.names.total() <= 100, outside.names


class NoCopies(TorchDispatchMode):
    """Refuses what takes a value to another device, or to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        moves = name == '_to_copy' and kwargs.get('device') is not None
        assert not moves, func
        assert name not in ('lift_fresh', '_local_scalar_dense', 'copy_'), func
        return func(*args, **kwargs)


@pytest.mark.parametrize('mode', ['zeros', 'circular', 'replicate', 'reflect'])
def test_a_new_size_copies_nothing(mode):
    """On a device that has no values: it could not even be waited for."""
    conv = nn.Conv2d(2, 2, 3, 2, 1, padding_mode=mode, device='meta').double()
    moments = Moments(*torch.ones(2, 2, device='meta', dtype=torch.float64))
    with NoCopies():
        got = convolution.convolved(conv, moments, (11, 13))
    assert got.mean.shape == (2,)
    relu = stepped(activated(F.relu, 2), moments)
    with NoCopies():
        stepped(partial(largest, function=F.relu), relu, ((9, 20), (6, 8)))
