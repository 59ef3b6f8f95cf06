"""Fisher blocks of a network's layers, in the coordinates of their weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normplug.whitened import WhitenedLayer, rewrite
from normplug.whitened.rewrite import coordinates_of

__all__ = ['Block', 'blocks', 'whiten_now']

_FLOOR = 1e-3  # of the mean eigenvalue: a dead channel would make any condition number infinite


class Block(NamedTuple):
    """F_ii = E[δδᵀ] ⊗ E[ooᵀ] of a layer, pixels as samples (Luo, ICML 2017).

    Attributes:
        layer: name.
        condition: largest over smallest eigenvalue, 1e-3 of the mean one added to both.
        distance: |F / (mean eigenvalue) − I| by Frobenius' norm, over that of I.
    """

    layer: str
    condition: float
    distance: float


def blocks(model: nn.Module, x: Tensor, canonical: bool) -> list[Block]:
    """Estimate the blocks of all convolutions, with labels drawn from the model's prediction.

    Args:
        model: in evaluation mode, a classifier.
        x: images, each a sample.
        canonical: of W, of the plain layer; else of V, in whose coordinates inputs are B (o − c)
            and gradients Aᵀδ.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    inputs, outputs, handles = {}, {}, []
    for name, layer in layers.items():

        def note(layer, args, output, name=name):
            inputs[name], outputs[name] = args[0].detach(), output

        handles.append(layer.register_forward_hook(note))
    logits = model(x)
    for handle in handles:
        handle.remove()
    labels = torch.distributions.Categorical(logits=logits.detach()).sample()
    loss = F.cross_entropy(logits, labels, reduction='sum')
    grads = torch.autograd.grad(loss, list(outputs.values()))
    return [
        _block(name, layers[name], inputs[name], grad, canonical)
        for name, grad in zip(outputs, grads, strict=True)
    ]


def whiten_now(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Rewrite every whitened layer by what ``x`` shows in evaluation mode."""
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, WhitenedLayer)]
    model.eval()
    for _, layer in found:
        for seen in (layer.seen_in, layer.seen_out):
            if seen is not None:
                seen.forget()
        layer.sampling, layer.training = True, True
    F.cross_entropy(model(x), y).backward()
    for name, layer in found:
        layer.sampling = False
        for seen in (layer.seen_in, layer.seen_out):
            if seen is not None:
                seen.gather()
        rewrite(layer, coordinates_of(layer, name))
    model.eval()


def _block(name: str, layer: nn.Module, o: Tensor, delta: Tensor, canonical: bool) -> Block:
    o, delta = (t.double().transpose(0, 1).flatten(1) for t in (o, delta))
    if isinstance(layer, WhitenedLayer) and not canonical:
        o = o - layer.in_mean.double().unsqueeze(1)
        if layer.in_matrix is not None:
            o = layer.in_matrix.double() @ o
        if layer.out_matrix is not None:
            delta = layer.out_matrix.double().T @ delta
    sides = [torch.linalg.eigvalsh(t @ t.T / t.shape[1]).clamp(min=0) for t in (delta, o)]
    values = torch.outer(*sides).flatten()
    values = values / values.mean()
    condition = (values.max() + _FLOOR) / (values.min() + _FLOOR)
    distance = ((values - 1).square().mean()).sqrt()
    return Block(name, float(condition), float(distance))
