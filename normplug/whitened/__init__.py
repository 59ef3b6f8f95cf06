"""Whitened networks: layers whose weights are written in whitened coordinates."""

from normplug.whitened.base import WhitenedLayer
from normplug.whitened.foreign import check_coordinates, install
from normplug.whitened.layers import (
    EigenConv,
    PostGWNNConv,
    PreGWNNConv,
    WNNConv,
    WNNLinear,
)
from normplug.whitened.plain import plain_layer, plain_layers
from normplug.whitened.rewrite import Rewritten, WhiteningError, rewrite
from normplug.whitened.whitener import Whitener, whitened_layers

__all__ = [
    'EigenConv',
    'PostGWNNConv',
    'PreGWNNConv',
    'Rewritten',
    'WNNConv',
    'WNNLinear',
    'WhitenedLayer',
    'Whitener',
    'WhiteningError',
    'check_coordinates',
    'install',
    'plain_layer',
    'plain_layers',
    'rewrite',
    'whitened_layers',
]
