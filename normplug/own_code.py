"""Tell whether a layer computes anything besides what its class in torch or here computes.

``isinstance`` shows that a layer is a batch norm, but not that it is only that: a subclass may add
an activation, a hook may change the output, and a parametrization may change the weight.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ['HOOKS', 'hooks_of', 'own_code']

# mmcv's wrappers differ from torch's layers for empty inputs only.
_KNOWN = ('torch.nn.modules.', 'normplug.', 'mmcv.cnn.bricks.wrappers')
# Methods that run a layer, or hold its tensors and its mode. (_check_input_dim only checks.)
_METHODS = (
    '__call__',
    '_call_impl',
    'forward',
    'plan',
    'running',
    '_conv_forward',
    'train',
    'weight',
    'bias',
    '_apply',
    'state_dict',
    '_save_to_state_dict',
    '_load_from_state_dict',
)
_REWRITES_WEIGHT = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
HOOKS = (
    '_forward_pre_hooks',
    '_forward_pre_hooks_with_kwargs',
    '_forward_hooks',
    '_forward_hooks_with_kwargs',
    '_forward_hooks_always_called',
    '_backward_pre_hooks',
    '_backward_hooks',
    '_state_dict_pre_hooks',
    '_state_dict_hooks',
    '_load_state_dict_pre_hooks',
    '_load_state_dict_post_hooks',
)


def own_code(layer: nn.Module, *more: str) -> str:
    """Return how ``layer`` differs from the class that it inherits from; '' if it does not.

    Args:
        layer: a layer of torch or of this package, or of a subclass.
        more: names of more methods to look at.

    Returns:
        The difference, as the end of a sentence: 'has a forward of its own'.
    """
    for name in (*_METHODS, *more):
        if name in vars(layer) and callable(vars(layer)[name]):
            return f'has a {name} of its own, set on the instance'
        owner = next((cls for cls in type(layer).__mro__ if name in vars(cls)), nn.Module)
        if parametrize.is_parametrized(layer) and owner is type(layer):
            continue  # the property that torch made of the parameter
        if not owner.__module__.startswith(_KNOWN):
            return f'has a {name} of its own'
    rewritten = any(isinstance(h, _REWRITES_WEIGHT) for h in layer._forward_pre_hooks.values())
    if rewritten or parametrize.is_parametrized(layer):
        return 'makes its weight anew at each call (a parametrization, weight norm or pruning)'
    return ''


def hooks_of(layer: nn.Module) -> str:
    """Return the kinds of hooks of ``layer`` as the end of a sentence; '' if it has none."""
    kinds = [kind.strip('_').replace('_', ' ') for kind in HOOKS if getattr(layer, kind)]
    return f'has {", ".join(kinds)}' if kinds else ''
