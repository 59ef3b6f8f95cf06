"""Replace a norm layer by another: what the new one takes over, and what prevents it."""

from __future__ import annotations

import copy
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normplug.norms import BaseNorm
from normplug.own_code import HOOKS, own_code

__all__ = ['carry_over', 'takes_channels_last', 'why_irreplaceable']

_TENSORS = {'weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'}


def why_irreplaceable(layer: nn.Module) -> str:
    """Return what ``layer`` does besides normalizing, as the end of a sentence; '' if nothing.

    A subclass of LayerNorm may compute in any way, if the result is layer norm over axis 1 or over
    the last axis, as for mm's LN2d and CLIP's LayerNorm.
    """
    reason = own_code(layer)
    if reason == 'has a forward of its own' and isinstance(layer, nn.LayerNorm):
        reason = '' if _channel_axis(layer) is not None else f'{reason} that is no layer norm'
    if reason:
        return reason
    if not isinstance(layer, BaseNorm):
        more = {name for name, _ in chain(layer.named_parameters(), layer.named_buffers())}
        more = sorted(more - _TENSORS) + [name for name, _ in layer.named_children()]
        if more:
            return f'has {", ".join(more)} of its own'
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)) and len(layer.normalized_shape) != 1:
        return f'normalizes the last {len(layer.normalized_shape)} axes, with a weight for each'
    # A hook that is a method of the layer would still act on the old layer.
    for kind in HOOKS:
        for hook in getattr(layer, kind).values():
            hook = getattr(hook, 'hook', hook)  # torch wraps those before loading
            if getattr(hook, '__self__', None) is layer:
                return f'has a hook that is its own method {hook.__name__}'
    return ''


def takes_channels_last(layer: nn.Module) -> bool:
    """Return whether channels are on the last axis (nn.LayerNorm) and not on axis 1."""
    if isinstance(layer, nn.LayerNorm) and own_code(layer):
        return _channel_axis(layer) == -1
    return isinstance(layer, (nn.LayerNorm, nn.RMSNorm))


def _channel_axis(layer: nn.LayerNorm) -> int | None:
    """Return 1 or −1 if ``layer`` computes layer norm over that axis; None if it does not."""
    if len(layer.normalized_shape) != 1:
        return None
    twin = copy.deepcopy(layer).to_empty(device='cpu').float().train()
    channels = layer.normalized_shape[0]
    sizes = [n for n in (3, 4, 5) if n != channels][:2]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
        for axis, shape in (
            (1, (2, channels, *sizes)),
            (-1, (2, *sizes, channels)),
            (-1, (2, sizes[0], channels)),
        ):
            x = torch.randn(shape, generator=generator)
            if _gives(twin, x, axis):
                return axis
    return None


def _gives(twin: nn.LayerNorm, x: Tensor, axis: int) -> bool:
    want = F.layer_norm(
        x.movedim(axis, -1), twin.normalized_shape, twin.weight, twin.bias, twin.eps
    )
    try:
        # Not a call of the module, whose hooks are for the model's own forward.
        got = type(twin).forward(twin, x)
    except Exception:  # what else it needs, it does not get here
        return False
    is_like = isinstance(got, Tensor) and got.shape == x.shape
    return is_like and torch.allclose(got, want.movedim(-1, axis), rtol=1e-5, atol=1e-5)


def carry_over(old: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the device, dtype, mode, hooks and process group of ``old``.

    Also ``requires_grad``: parameters that both have get that of ``old``; others are trained unless
    nothing in ``old`` was.
    """
    for tensor in chain(old.parameters(), old.buffers()):
        if tensor.is_floating_point():
            new.to(tensor.device, tensor.dtype)
            break
    trained = {name: p.requires_grad for name, p in old.named_parameters()}
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(trained.get(name, not trained or any(trained.values())))
    if getattr(old, 'process_group', None) is not None and hasattr(new, 'process_group'):
        new.process_group = old.process_group
    for kind in HOOKS:
        # The very dict: the handles that remove the hooks hold it.
        hooks = getattr(old, kind)
        hooks.update(getattr(new, kind))
        setattr(new, kind, hooks)
    new._is_full_backward_hook = old._is_full_backward_hook
    for key, hook in new._load_state_dict_pre_hooks.items():
        if hook.with_module:  # it has a reference to its layer
            new._load_state_dict_pre_hooks[key] = type(hook)(hook.hook, new)
    new.train(old.training)
