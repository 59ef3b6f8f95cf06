"""Where others take the ``weight`` of a layer for what it computes with.

That of a whitened layer is V, which is nothing without its A, B and c. A plain layer would take it
for W, and so do functions of mmcv that read the weight past the layer's forward.
"""

import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import mmengine.runner
import mmengine.runner.checkpoint
from torch import Tensor, nn

from normplug.checkpoint_file import CheckpointError, few, whitened_layers_in
from normplug.compat.on_import import on_import
from normplug.models.wrappers import unwrapped
from normplug.whitened.base import WhitenedLayer
from normplug.whitened.plain import plain_layer

__all__ = ['check_coordinates', 'install']


def check_coordinates(
    model: nn.Module, state: Mapping[str, Any], whose: str = 'the checkpoint'
) -> None:
    """Raise unless the whitened weights in ``state`` belong to layers that compute with them.

    Loading that is not strict passes over the tensors that a plain layer does not have, and the
    network becomes another. A plain weight fits every layer: a whitened one takes it for W.

    Args:
        model: that ``state`` is for, or what wraps it.
        state: a state dict with the names of ``model``. Layers that ``model`` lacks do not matter.
        whose: what it is, for the message.

    Raises:
        CheckpointError: a layer is plain, or whitened in another way.
    """
    names = whitened_layers_in(state)
    if not names:
        return
    layers = dict(unwrapped(model).named_modules(remove_duplicate=False))
    wrong = {}
    for name in names:
        layer = layers.get(name)
        if isinstance(layer, WhitenedLayer):
            differs = layer.differs_from(state, f'{name}.' if name else '')
        else:
            own = getattr(layer, 'weight', None)
            theirs = state.get(f'{name}.weight' if name else 'weight')
            # One of another shape, as a new head's, is not loaded.
            differs = isinstance(own, Tensor) and getattr(theirs, 'shape', None) == own.shape
        if differs:
            wrong[name] = type(layer).__name__
    if wrong:
        of_model = ', '.join(sorted(set(wrong.values())))
        raise CheckpointError(
            f'{whose} has whitened weights for {len(wrong)} layers that are {of_model} in the '
            f'model ({few(wrong)}), and would compute something else with them: build the model '
            'with the conv_cfg that it was trained with. tools/deploy.py makes plain layers of '
            'such a model, for inference'
        )


def install() -> None:
    """Check what mm loads, and let mmcv's functions see W; calling it again changes nothing."""
    for module in (mmengine.runner, mmengine.runner.checkpoint):
        if not hasattr(module.load_state_dict, 'checks_coordinates'):
            module.load_state_dict = _checked(module.load_state_dict)
    on_import('mmcv.cnn.utils.fuse_conv_bn', _fuse_plain_layers)
    on_import('mmcv.cnn.bricks.conv_module', _run_as_they_are)


def _checked(load: Callable) -> Callable:
    @functools.wraps(load)
    def load_state_dict(module: nn.Module, state_dict: Mapping[str, Any], *args, **kwargs) -> None:
        check_coordinates(module, state_dict)
        load(module, state_dict, *args, **kwargs)

    load_state_dict.checks_coordinates = True
    return load_state_dict


def _fuse_plain_layers(module: ModuleType) -> None:
    fuse = module._fuse_conv_bn

    @functools.wraps(fuse)
    def fuse_plain(conv: nn.Module, bn: nn.Module) -> nn.Module:
        return fuse(plain_layer(conv) if isinstance(conv, WhitenedLayer) else conv, bn)

    module._fuse_conv_bn = fuse_plain


def _run_as_they_are(module: ModuleType) -> None:
    """``efficient_conv_bn_eval`` of a ConvModule, which calls this as the convolution's forward."""
    run = module.efficient_conv_bn_eval_forward

    @functools.wraps(run)
    def run_as_it_is(bn: nn.Module, conv: nn.Module, x: Tensor) -> Tensor:
        if isinstance(conv, WhitenedLayer):
            return bn(type(conv).forward(conv, x))
        return run(bn, conv, x)

    module.efficient_conv_bn_eval_forward = run_as_it_is
