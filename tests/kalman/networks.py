"""Small chains of convolutions and normalizers, as lists that torch and numpy both can run."""

import random

import torch
from torch import nn

from normplug.kalman import link_kalman
from normplug.norms.kn import KN


class Residual(nn.Module):
    """x plus what the body makes of it."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


def conv(c_in, c_out, kernel=3, stride=1, padding=1, dilation=1, groups=1, bias=False):
    """The item of a convolution over two axes."""
    return 'conv', dict(
        channels=(c_in, c_out),
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(dilation, dilation),
        groups=groups,
        bias=bias,
        padding_mode='zeros',
    )


def block(c):
    """The body of a basic residual block, without its last ReLU."""
    return [conv(c, c), ('norm', c), ('relu',), conv(c, c, bias=True), ('norm', c)]


STEM = [conv(3, 4), ('norm', 4), ('relu',)]
CHAIN = [*STEM, conv(4, 6, stride=2), ('norm', 6), ('relu',), conv(6, 6, 1, padding=0), ('norm', 6)]
RESIDUAL = [*STEM, ('residual', block(4)), ('relu',), conv(4, 5, stride=2, bias=True), ('norm', 5)]


def random_items(seed):
    """A stem, and 2 to 4 layers or blocks of random kind after it."""
    pick = random.Random(seed)
    items, c = list(STEM), 4
    for _ in range(pick.randint(2, 4)):
        if pick.random() < 0.35:
            items += [('residual', block(c)), ('relu',)]
            continue
        out = pick.choice([4, 6, 8])
        kernel = pick.choice([1, 2, 3])
        dilation = pick.choice([1, 2])
        items += [
            conv(
                *(c, out, kernel, pick.choice([1, 1, 2]), pick.choice([0, 1])),
                *(dilation, pick.choice([1, 2]), pick.random() < 0.5),
            ),
            ('norm', out),
            ('relu',),
        ]
        c = out
    return items


def build(items, **options):
    """The torch module of ``items``."""
    layers = []
    for kind, *args in items:
        if kind == 'conv':
            how = dict(args[0])
            layers.append(nn.Conv2d(*how.pop('channels'), how.pop('kernel'), **how))
        elif kind == 'norm':
            layers.append(KN(args[0], **options))
        elif kind == 'pool':
            layers.append(nn.MaxPool2d(args[0]))
        elif kind == 'residual':
            layers.append(Residual(build(args[0], **options)))
        else:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def made(items, size=8, images=4, seed=0, **options):
    """A linked double model with random affine and learned parameters, and its input."""
    torch.manual_seed(seed)
    model = build(items, **options).double()
    for name, parameter in model.named_parameters():
        if name.endswith(('weight', 'bias')) and parameter.dim() == 1:
            nn.init.normal_(parameter, 0.3 if name.endswith('bias') else 1.0, 0.4)
        elif 'transition' in name or 'gain' in name:
            nn.init.normal_(parameter, 0.5, 0.3)
    x = 0.7 + 1.5 * torch.randn(images, 3, size, size, dtype=torch.float64)
    x = x * torch.linspace(0.5, 1.5, images, dtype=x.dtype).view(-1, 1, 1, 1)
    reports = link_kalman(model, lambda: model(x))
    assert sum(bool(r.predecessors) for r in reports) == len(reports) - 1, reports
    return model, x
