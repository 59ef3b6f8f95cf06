"""The graph of states of a model, from one forward of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from normplug.forward_hooks import input_of
from normplug.kalman.composed import compose, elementwise_only
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
from normplug.norms.cbn import CBN
from normplug.norms.kn import KN
from normplug.own_code import own_code

__all__ = ['Observation', 'Trace']

_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_RELU = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
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
    """What the trace found for one normalizer.

    Attributes:
        prior: the node of its input; None if no path could be followed.
        posterior: the node of its posterior.
        lost: where the path of its input ended; '' if there was none.
    """

    prior: Node | None
    posterior: Posterior
    lost: str


class Trace(TorchFunctionMode):
    """Follows states through the forward that runs in its context.

    Attributes:
        observations: one for each KN that ran, in order.
        convolutions: of each CBN that ran, the name and module of the convolution whose output is
            its input; None if there is none.
        shared: names of the normalizers that ran more than once.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.observations: dict[str, Observation] = {}
        self.convolutions: dict[str, tuple[str, Conv] | None] = {}
        self.shared: set[str] = set()
        self._nodes = WeakTensorKeyDictionary()
        self._lost = WeakTensorKeyDictionary()
        self._outputs = WeakTensorKeyDictionary()  # of convolutions
        self._model = model
        self._constants = {id(t) for t in (*model.parameters(), *model.buffers())}
        self._by_weight: dict[int, tuple[str, Conv]] = {
            id(module._parameters['weight']): (name, module)
            for name, module in model.named_modules()
            # A parametrized weight is another tensor at each access.
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
            and module._parameters.get('weight') is not None
        }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Run ``func``, and record the node of its result."""
        kwargs = kwargs or {}
        lost = self._where_lost(func, args, kwargs)
        node = self._after(func, args, kwargs)
        root, composed = (None, None) if node else self._composed(func, args, kwargs)
        if composed is None:
            result = func(*args, **kwargs)
        else:
            shape = next(t.shape for t in tree_leaves((args, kwargs)) if self._get(t) is not None)
            with elementwise_only(func) as was_elementwise:
                result = func(*args, **kwargs)
            if was_elementwise() and isinstance(result, Tensor) and result.shape == shape:
                node = Activated(root, composed)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._set(tensor, node, lost)
        if func in _CONVOLUTIONS:
            self._outputs[result] = self._convolution(*args, **kwargs), result._version
        return result

    def _after(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Node | None:
        """Return the node of the result of ``func``, if that is not elementwise in one tensor."""
        if func in (torch.cat, torch.concat):
            return self._concatenated(*args, **kwargs)
        first = args[0] if args else kwargs.get('input')
        node = self._get(first)
        if func in _CONVOLUTIONS:
            known = self._convolution(*args, **kwargs)
            return Convolved(node, *known) if node and known else None
        if func in _SUMS:
            return self._summed(*args, **kwargs)
        if node is None:
            return None
        if func in _SAME:
            return node
        if func is F.dropout:
            return None if _dropout_is_on(*args, **kwargs) else node
        if func in _RELU and not isinstance(node, Activated):
            return Activated(node, F.relu)
        if func in _MAX_POOLS or func in _AVERAGE_POOLS:
            return _pooled(func, node, *args, **kwargs)
        return None

    def _composed(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple:
        """Return the node of which all tensors of ``func`` are functions, and that function."""
        roots = {_root(node) for t in tree_leaves((args, kwargs)) if (node := self._get(t))}
        if len(roots) != 1:
            return None, None

        def function_of(tensor: Tensor) -> Callable | None:
            node = self._get(tensor)
            if node is None:
                return None
            # A copy, for functions that work in place.
            return node.function if isinstance(node, Activated) else torch.clone

        return roots.pop(), compose(
            func, args, kwargs, function_of, lambda tensor: id(tensor) in self._constants
        )

    def _where_lost(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> str:
        """Return where the path ends: at ``func``, or where it was lost before."""
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if any(self._get(tensor) is not None for tensor in tensors):
            return resolve_name(func) or getattr(func, '__name__', str(func))
        return next(filter(None, map(self.lost, tensors)), '')

    def lost(self, tensor: Tensor) -> str:
        """Return where the path of a tensor ended; '' if it had none."""
        if tensor in self._nodes and self._get(tensor) is None:
            return 'a change in place'
        return self._lost.get(tensor, '')

    def _convolution(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> tuple[str, Conv] | None:
        """Return the convolution of the model that this call is, as it was built."""
        known = self._by_weight.get(id(weight))
        if known is None:
            return None
        conv = known[1]
        axes = weight.dim() - 2
        given = _wide(stride, axes), _wide(padding, axes), _wide(dilation, axes), groups
        # A subclass may compute something else than its attributes say.
        as_built = given == (conv.stride, _wide(conv.padding, axes), conv.dilation, conv.groups)
        return known if as_built and bias is conv.bias else None

    def _concatenated(self, tensors: list[Tensor], dim: int = 0, **_: Any) -> Node | None:
        nodes = [self._get(tensor) for tensor in tensors]
        along_channels = dim in (1, 1 - tensors[0].dim())
        return Concatenated(*nodes) if along_channels and None not in nodes else None

    def _summed(self, input: Tensor, other: Any, *, alpha: Any = 1, **_: Any) -> Node | None:
        if isinstance(other, (int, float)) and other == 0:
            return self._get(input)
        nodes = [self._get(input), self._get(other)]
        fits = alpha == 1 and None not in nodes and input.shape == other.shape
        # Functions of one tensor are not independent.
        return Summed(*nodes) if fits and len(set(map(_root, nodes))) == 2 else None

    def _get(self, tensor: Any) -> Node | None:
        if not isinstance(tensor, Tensor):
            return None
        node, version = self._nodes.get(tensor, (None, None))
        return node if version == tensor._version else None  # changed in place by something else

    def _set(self, tensor: Tensor, node: Node | None, lost: str = '') -> None:
        if node is not None:
            self._nodes[tensor] = node, tensor._version
        else:
            self._nodes.pop(tensor, None)
            self._lost[tensor] = lost

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Trace what runs in this context, and watch the normalizers of the model."""
        handles = []
        for name, layer in self._model.named_modules():
            if isinstance(layer, CBN):
                before = partial(self._before_cbn, name)
                handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
            if isinstance(layer, KN):
                before = partial(self._before_norm, name)
                after = partial(self._after_norm, name)
                handles += [
                    layer.register_forward_pre_hook(before, with_kwargs=True),
                    # The first of its hooks: the others may change the result.
                    layer.register_forward_hook(after, with_kwargs=True, prepend=True),
                ]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _before_cbn(self, name: str, layer: CBN, args: tuple, kwargs: dict[str, Tensor]) -> None:
        if name in self.convolutions:
            self.shared.add(name)
            return
        x = input_of(args, kwargs)
        known, version = self._outputs.get(x, (None, None))
        self.convolutions[name] = known if version == x._version else None

    def _before_norm(self, name: str, layer: KN, args: tuple, kwargs: dict[str, Tensor]) -> None:
        if name in self.observations:
            self.shared.add(name)
        else:
            x = input_of(args, kwargs)
            node = self._get(x)
            lost = '' if node else self.lost(x)
            self.observations[name] = Observation(node, Posterior(name), lost)

    def _after_norm(
        self, name: str, layer: KN, args: tuple, kwargs: dict[str, Tensor], result: Tensor
    ) -> None:
        own = own_code(layer)
        if own:
            self._set(result, None, f'{name}, which {own}')
            return
        # What the layer found of its input is the state of both: that before normalization
        # travels.
        for tensor in (input_of(args, kwargs), result):
            self._set(tensor, self.observations[name].posterior)


def _root(node: Node | None) -> Node | None:
    """The argument of an elementwise function."""
    return node.parts[0] if isinstance(node, Activated) else node


def _wide(value: Any, axes: int) -> Any:
    """One number an axis; a name as it is."""
    if isinstance(value, str):
        return value
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return value * axes if len(value) == 1 else value


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

    options = dict(zip(names, rest, strict=False)) | kwargs
    if options.get('divisor_override') is not None:
        return None
    kernel = _wide(kernel_size, axes)
    window = Window(
        kernel,
        _wide(stride, axes) if stride else kernel,
        _wide(padding, axes),
        _wide(options.get('dilation', 1), axes),
        bool(options.get('ceil_mode', False)),
        bool(options.get('count_include_pad', True)),
    )
    return Pooled(node, func, window)
