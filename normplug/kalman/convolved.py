"""Link cross-iteration batch norms to the convolutions before them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from normplug.forward_hooks import HookOfOriginal, input_of
from normplug.kalman.convolution import Conv
from normplug.kalman.trace import Trace
from normplug.norms.cbn import CBN
from normplug.own_code import own_code

__all__ = [
    'LinkToConvolution',
    'SharedLayerError',
    'check_runs_once',
    'links_of',
    'reason_for_none',
]


class SharedLayerError(ValueError):
    """A CBN runs several times in a forward."""


class _Calls:
    """The last call of a convolution, until a norm after it takes it.

    Args:
        name: of the convolution.
        conv: the convolution.
    """

    def __init__(self, name: str, conv: Conv) -> None:
        self.name, self.conv = name, conv
        self.norms: list[CBN] = []
        self._last: tuple[Tensor, Tensor, int] | None = None

    def watch(self) -> RemovableHandle:
        # The first of its hooks: the others may change the result.
        hook = HookOfOriginal(self._note)
        return self.conv.register_forward_hook(hook, with_kwargs=True, prepend=True)

    # A compiler goes around it, as around the norm.
    @torch.compiler.disable
    def _note(self, conv: Conv, args: tuple, kwargs: dict[str, Tensor], result: Tensor) -> None:
        self._last = None
        if any(norm.training and not norm.frozen for norm in self.norms):
            self._last = input_of(args, kwargs), result, result._version

    def take(self, h: Tensor) -> Tensor | None:
        """Return the input of the call that made ``h``; None if it was not the last."""
        last, self._last = self._last, None
        if last is None or last[1] is not h or last[2] != h._version:
            return None
        return last[0]


class LinkToConvolution:
    """A layer's convolution: a :class:`normplug.norms.cbn.ConvolutionLink`.

    Args:
        name: of the layer.
        calls: of its convolution; None for a plain batch norm.
    """

    def __init__(self, name: str, calls: _Calls | None = None) -> None:
        self._name, self._calls = name, calls
        self.conv = None if calls is None else calls.conv

    def take(self, h: Tensor) -> Tensor:
        """Return the input of which the convolution has just made ``h``."""
        x = self._calls.take(h)
        if x is None:
            raise RuntimeError(
                f'CBN layer {self._name} was linked to {self._calls.name}, but its input is not '
                'what that has just given: one of them was replaced or called by itself, or '
                'something between them changes the tensor. Link the model again: '
                'normplug.link_kalman(model, ...)'
            )
        return x


def check_runs_once(layers: dict[str, CBN], trace: Trace) -> None:
    """Raise :class:`SharedLayerError` if a layer that trains ran several times in the forward."""
    for name, layer in layers.items():
        if name in trace.shared and layer.training and not layer.frozen:
            raise SharedLayerError(
                f'{name}: this CBN runs several times in a forward, as a head does that is shared '
                'over levels: what it remembers would mix their inputs. Give each level a norm of '
                "its own (mmdet's RetinaSepBNHead does), or this part another norm_cfg"
            )


def reason_for_none(name: str, layer: CBN, trace: Trace) -> str:
    """Return why a layer is a plain batch norm; '' if it is not."""
    if name not in trace.convolutions:
        return 'it did not run in the forward that was followed'
    if own := own_code(layer):
        return f'{type(layer).__name__} {own}'
    if trace.convolutions[name] is None:
        return 'its input is not the output itself of a convolution whose weight is a parameter'
    return ''


def links_of(
    layers: dict[str, CBN], convolutions: dict[str, tuple[str, Conv] | None]
) -> tuple[dict[str, LinkToConvolution], tuple[RemovableHandle, ...]]:
    """Return the links of layers, and the hooks that they need.

    Args:
        layers: by name.
        convolutions: of each layer, by its name, that of which it takes the output, with the
            convolution's name; None for none.
    """
    calls: dict[int, _Calls] = {}
    links = {}
    for name, layer in layers.items():
        known = convolutions[name]
        if known is None:
            links[name] = LinkToConvolution(name)
            continue
        own = calls.setdefault(id(known[1]), _Calls(*known))
        own.norms.append(layer)
        links[name] = LinkToConvolution(name, own)
        if not layer.history.fits(known[1]):
            layer.history.clear()
            warnings.warn(
                f'CBN layer {name} forgets the iterations of its checkpoint, which are of another '
                f'convolution than {known[0]}',
                stacklevel=3,
            )
    return links, tuple(each.watch() for each in calls.values())
