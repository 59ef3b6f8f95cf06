"""Whitened layers as the plain layers that compute the same."""

import torch
from torch import nn

from normplug.whitened.base import WhitenedLayer

__all__ = ['plain_layer', 'plain_layers']


@torch.no_grad()
def plain_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Replace every whitened layer of ``model`` by ``nn.Conv2d`` or ``nn.Linear``, in place.

    See :func:`plain_layer`. A layer of several names is one layer after.

    Returns:
        The new layers, by their first name; they have a bias, also if the whitened one had not.
    """
    new: dict[nn.Module, nn.Module] = {}
    found = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(layer, WhitenedLayer):
            continue
        if layer not in new:
            new[layer] = found[name] = plain_layer(layer)
        parent, _, own = name.rpartition('.')
        setattr(model.get_submodule(parent), own, new[layer])
    return found


@torch.no_grad()
def plain_layer(layer: WhitenedLayer) -> nn.Module:
    """Return the ``nn.Conv2d`` or ``nn.Linear``, with a bias, that computes the same.

    W and b are computed in float64 and rounded once.
    """
    weight, bias = layer.canonical(torch.float64)
    options = dict(device=weight.device, dtype=layer.weight.dtype)
    if isinstance(layer, nn.Linear):
        plain = nn.Linear(layer.in_features, layer.out_features, **options)
    else:
        plain = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            padding_mode=layer.padding_mode,
            **options,
        )
    plain.weight.copy_(weight)
    plain.bias.copy_(bias)
    return plain.train(layer.training)
