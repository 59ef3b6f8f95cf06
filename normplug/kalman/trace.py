"""The graph of states of a model, from one forward of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from normplug.kalman.convolution import Conv
from normplug.kalman.states import (
    Activated,
    Concatenated,
    Convolved,
    Node,
    Pooled,
    Posterior,
    Summed,
    Window,
)
from normplug.norms.kn import KN

__all__ = ['Observation', 'Trace']

_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_RELU = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
# Elementwise; others than ReLU are computed by quadrature.
_ACTIVATIONS = {
    F.leaky_relu,
    F.hardtanh,
    F.relu6,
    F.silu,
    F.gelu,
    F.elu,
    F.hardswish,
    F.mish,
    F.softplus,
    torch.sigmoid,
    torch.tanh,
    Tensor.sigmoid,
    Tensor.tanh,
}
_SUMS = {torch.add, Tensor.add, Tensor.add_}
_SAME = {
    Tensor.contiguous,
    Tensor.clone,
    Tensor.detach,
    Tensor.float,
    Tensor.half,
    Tensor.bfloat16,
    Tensor.to,
    torch.clone,
}
_MAX_POOLS = {F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3}
_AVERAGE_POOLS = {F.avg_pool1d: 1, F.avg_pool2d: 2, F.avg_pool3d: 3}


class Observation(NamedTuple):
    """What one normalizer saw in the traced forward.

    Attributes:
        prior: the node of its input, None where no path could be followed.
        posterior: its own.
    """

    prior: Node | None
    posterior: Posterior


class Trace(TorchFunctionMode):
    """Follows states through the forward that runs in its context.

    Attributes:
        observations: of each normalizer that ran, in order.
        shared: names of those that ran more than once.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.observations: dict[str, Observation] = {}
        self.shared: set[str] = set()
        self._nodes = WeakTensorKeyDictionary()
        self._model = model
        self._convolutions: dict[int, tuple[str, Conv]] = {
            id(module._parameters['weight']): (name, module)
            for name, module in model.named_modules()
            # A parametrized weight is another tensor at each access.
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
            and module._parameters.get('weight') is not None
        }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Run ``func``, and note what its result is of the states of its arguments."""
        kwargs = kwargs or {}
        node = self._after(func, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            self._set(result, node)
        return result

    def _after(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Node | None:
        """The node of ``func``'s result, None where it is not known what that does to a state."""
        if func in _CONVOLUTIONS:
            return self._convolved(*args, **kwargs)
        if func in (torch.cat, torch.concat):
            return self._concatenated(*args, **kwargs)
        first = args[0] if args else kwargs.get('input')
        node = self._get(first)
        if func in _SUMS:
            return self._summed(*args, **kwargs)
        if node is None:
            return None
        if func in _SAME:
            return node
        if func is F.dropout:
            return None if _dropout_is_on(*args, **kwargs) else node
        if func in _RELU:
            return Activated(node, F.relu)
        if func in _ACTIVATIONS:
            options = {k: v for k, v in kwargs.items() if k not in ('input', 'inplace')}
            return Activated(node, partial(_activate, func, args[1:], tuple(options.items())))
        if func in _MAX_POOLS or func in _AVERAGE_POOLS:
            return _pooled(func, node, *args, **kwargs)
        return None

    def _convolved(self, input: Tensor, weight: Tensor, *_args: Any, **_kwargs: Any) -> Node | None:
        node, known = self._get(input), self._convolutions.get(id(weight))
        return None if node is None or known is None else Convolved(node, *known)

    def _concatenated(self, tensors: list[Tensor], dim: int = 0, **_: Any) -> Node | None:
        nodes = [self._get(tensor) for tensor in tensors]
        along_channels = dim in (1, 1 - tensors[0].dim())
        return Concatenated(*nodes) if along_channels and None not in nodes else None

    def _summed(self, input: Tensor, other: Any, *, alpha: Any = 1, **_: Any) -> Node | None:
        if isinstance(other, (int, float)) and other == 0:
            return self._get(input)
        nodes = [self._get(input), self._get(other)]
        fits = alpha == 1 and None not in nodes and input.shape == other.shape
        return Summed(*nodes) if fits else None

    def _get(self, tensor: Any) -> Node | None:
        if not isinstance(tensor, Tensor):
            return None
        node, version = self._nodes.get(tensor, (None, None))
        return node if version == tensor._version else None  # changed in place by something else

    def _set(self, tensor: Tensor, node: Node | None) -> None:
        if node is not None:
            self._nodes[tensor] = node, tensor._version
        else:
            self._nodes.pop(tensor, None)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Trace what runs in this context, and watch the normalizers of the model."""
        handles = []
        for name, layer in self._model.named_modules():
            if isinstance(layer, KN):
                before = partial(self._before_norm, name)
                after = partial(self._after_norm, name)
                handles += [
                    layer.register_forward_pre_hook(before, with_kwargs=True),
                    layer.register_forward_hook(after, with_kwargs=True),
                ]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _before_norm(self, name: str, layer: KN, args: tuple, kwargs: dict[str, Tensor]) -> None:
        if name in self.observations:
            self.shared.add(name)
        else:
            self.observations[name] = Observation(self._get(_x(args, kwargs)), Posterior(name))

    def _after_norm(
        self, name: str, layer: KN, args: tuple, kwargs: dict[str, Tensor], result: Tensor
    ) -> None:
        # What the layer found of its input is the state of both: that before normalization
        # travels.
        for tensor in (_x(args, kwargs), result):
            self._set(tensor, self.observations[name].posterior)


def _x(args: tuple, kwargs: dict[str, Tensor]) -> Tensor:
    return args[0] if args else kwargs['x']


def _activate(func: Callable, args: tuple, options: tuple, x: Tensor) -> Tensor:
    return func(x, *args, **dict(options))


def _dropout_is_on(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> bool:
    return training and p > 0


def _pooled(
    func: Callable,
    node: Node,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *rest: Any,
    **kwargs: Any,
) -> Node | None:
    axes = _MAX_POOLS.get(func) or _AVERAGE_POOLS[func]
    if func in _AVERAGE_POOLS:
        names = ('ceil_mode', 'count_include_pad', 'divisor_override')
    else:
        names = ('dilation', 'ceil_mode', 'return_indices')

    def wide(value: Any) -> tuple[int, ...]:
        value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        return value * axes if len(value) == 1 else value

    options = dict(zip(names, rest, strict=False)) | kwargs
    if options.get('divisor_override') is not None:
        return None
    kernel = wide(kernel_size)
    window = Window(
        kernel,
        wide(stride) if stride else kernel,
        wide(padding),
        wide(options.get('dilation', 1)),
        bool(options.get('ceil_mode', False)),
        bool(options.get('count_include_pad', True)),
    )
    return Pooled(node, func, window)
