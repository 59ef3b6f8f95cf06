"""A classifier of scikit-learn's digits, and its training."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normplug.whitened import (
    EigenConv,
    PostGWNNConv,
    PreGWNNConv,
    Whitener,
    WNNConv,
    whitened_layers,
)

__all__ = ['KINDS', 'NETWORKS', 'Run', 'Settings', 'data', 'network', 'train']

# Kind → its convolution, and whether batch norm stands behind each.
KINDS = {
    'SGD': (nn.Conv2d, False),
    'BN': (nn.Conv2d, True),
    'WNN + BN': (WNNConv, True),
    'pre-GWNN + BN': (PreGWNNConv, True),
    'post-GWNN + BN': (PostGWNNConv, True),
    'EigenNet + BN': (EigenConv, True),
}
NETWORKS = ('fully connected', 'convolutional')
_VALIDATED = 450  # of 1797 scans


@dataclass(frozen=True)
class Settings:
    """Of a training: SGD with momentum 0.9, along a cosine."""

    iterations: int = 600
    batch: int = 32
    interval: int = 50
    batches: int = 16
    eps: float = 0.1
    momentum: str = 'reset'


@dataclass
class Run:
    """A training.

    Attributes:
        losses: of each iteration.
        seconds: since the start, after each iteration.
        error: of the validation at the end, in per cent.
        whitening: seconds of all rewritings.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    error: float = 100.0
    whitening: float = 0.0


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (N, 1, 8, 8) in [0, 1] and labels, and those of validation."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[order] / 16
    y = torch.tensor(digits.target)[order]
    return x[_VALIDATED:], y[_VALIDATED:], x[:_VALIDATED], y[:_VALIDATED]


def network(kind: str, form: str, eps: float) -> nn.Sequential:
    """The classifier; its last layer is a plain one in all kinds.

    Args:
        kind: of ``KINDS``.
        form: of ``NETWORKS``; fully connected layers are 1x1 convolutions of single pixels.
        eps: of whitened layers.
    """
    layer, has_norm = KINDS[kind]
    if layer is not nn.Conv2d:
        layer = partial(layer, eps=eps)
    if form == 'fully connected':
        parts: list[nn.Module] = [nn.Flatten(), nn.Unflatten(1, (64, 1, 1))]
        widths = [(64, 128, 1, 1, 0), (128, 128, 1, 1, 0), (128, 128, 1, 1, 0)]
    else:
        parts, widths = [], [(1, 16, 3, 1, 1), (16, 32, 3, 2, 1), (32, 32, 3, 1, 1)]
    for inputs, outputs, size, stride, padding in widths:
        parts.append(layer(inputs, outputs, size, stride, padding, bias=not has_norm))
        parts += [nn.BatchNorm2d(outputs)] * has_norm + [nn.ReLU()]
    features = 128 if form == 'fully connected' else 32 * 16
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(features, 10))


def train(
    kind: str, form: str, rate: float, seed: int, settings: Settings
) -> tuple[nn.Sequential, Run]:
    """Train a new network; the same seed gives all kinds the same batches."""
    torch.manual_seed(seed)
    x, y, x_val, y_val = data()
    model = network(kind, form, settings.eps)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.iterations)
    layers = whitened_layers(model)
    whitener = Whitener(layers, [optimizer], settings.interval, settings.batches, settings.momentum)
    order = torch.Generator().manual_seed(seed)
    run, start = Run(), time.perf_counter()
    for iteration in range(settings.iterations):
        chosen = torch.randint(len(x), (settings.batch,), generator=order)
        whitener.before_step(iteration)
        loss = F.cross_entropy(model(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        before = time.perf_counter()
        if layers:
            whitener.after_step(iteration)
        run.whitening += time.perf_counter() - before
        run.losses.append(loss.item())
        run.seconds.append(time.perf_counter() - start)
        if not run.losses[-1] < 1e4:  # diverged
            return model, run
    model.eval()
    with torch.no_grad():
        run.error = 100 * float((model(x_val).argmax(1) != y_val).float().mean())
    return model, run
