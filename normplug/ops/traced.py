"""A step as a graph of operators for symbolic sizes, and the guards under which it is right."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from normplug.ops.blocked import SMALL
from normplug.ops.memory import on_gpu
from normplug.ops.plan import Plan

__all__ = [
    'TUNINGS',
    'Input',
    'Traced',
    'flattened',
    'may_vary',
    'pixel_class',
    'size_class',
    'sizes_of',
    'trace',
]

Input = Tensor | int  # of compiled code

_LONG = 4096  # pixels; on a CPU Inductor sums more by a slower loop that loses fewer digits
# On a GPU: pixels of a channel, and channels of all instances, up to which code is alike.
_PIXELS = 64, 256, 2048, 8192
_ROWS = 16384
# What code for a GPU is tuned to, whatever sizes come first: instances and channels, of few rows
# and of many. Told of more than 2048 channels, Inductor gives each instance a block of its own,
# which sums them at once; with blocks of two instances registers do not suffice.
_TUNED_TO = (2, 4096), (1024, 256)
# By how much to divide those channels for large maps, whose kernels add up pieces of pixels too, in
# float64, which takes two registers, and without batch moments, which divide a rule in two kernels.
_FEWER = 32
# By how much to divide those channels, in attempts to compile; 0 for the sizes that came first.
TUNINGS = 1, 8, 0
# Operators in one kernel, of many rows: more than that need more registers than there are.
_FUSED = 8


@dataclass
class Traced:
    """A traced step.

    Attributes:
        graph: of operators; it takes sizes and inputs.
        inputs: its symbolic sizes and stand-ins of tensors.
        passed: which of all sizes and strides it takes.
        options: of Inductor.
        mode: of the stand-ins.
        shaped: makes of the list that the graph returns what the step does.
    """

    graph: Any
    inputs: list[Any]
    passed: list[int]
    options: dict[str, Any]
    mode: Any
    shaped: Callable[[Sequence[Tensor | None]], Any]

    def guards(self) -> Callable[[Sequence[Input]], bool]:
        """Whether the code, as far as it is made by now, may be called with given inputs."""
        shapes = self.mode.shape_env
        stand_ins = self.inputs[len(self.passed) :]
        guards = shapes.produce_guards_expression(stand_ins, ignore_static=False)
        code: CodeType = compile(guards, '<guards>', 'eval')
        return lambda inputs: shapes.evaluate_guards_expression(code, inputs)


def size_class(x_n: Tensor) -> tuple[int, bool]:
    """The sizes that code is specialized to, as far as they are not its symbols.

    Asked of symbols, it becomes guards: Inductor's cache then keeps the classes apart too. On a
    CPU, the number of threads, and whether sums are long. On a GPU, how many pixels and rows a map
    has at least: blocks and splits that suit a stem take a hundred times as long on boxes.
    """
    pixels = prod(x_n.shape[2:])
    if on_gpu(x_n):
        rows = prod(x_n.shape[:2])
        return pixel_class(pixels), bool(rows > _ROWS)
    threads = 1 if x_n.numel() < SMALL else torch.get_num_threads()
    return threads, bool(pixels > _LONG)


def pixel_class(pixels: int) -> int:
    """On a GPU: how many of the bounds between classes a number of pixels is above, 0 to 4."""
    return sum(bool(pixels > bound) for bound in _PIXELS)


def may_vary(arg: Any) -> bool:
    """Whether an argument is a size that code takes at each call."""
    return type(arg) is int and arg > 1


def sizes_of(inputs: Sequence[Input]) -> list[int]:
    """Every size and stride."""
    return [
        size
        for value in inputs
        if isinstance(value, Tensor)
        for size in value.shape + value.stride()
    ]


@contextmanager
def trace(
    step: Callable, args: Sequence[Any], inputs: Sequence[Input], tuning: int = TUNINGS[0]
) -> Iterator[Traced]:
    """Trace ``step(*args)``; within the context, what surrounds the call has no effect.

    Args:
        step: see :func:`normplug.ops.compiled.call`.
        args: its arguments.
        inputs: those of them that the graph takes.
        tuning: of ``TUNINGS``. Unless 0, code for a GPU is the same for whatever sizes come first;
            not that of whitening, whose number of channels is a constant.
    """
    # Imported here: with Inductor they take seconds, which an eager process need not wait.
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    _start_autograd()
    shapes = _sizes()
    mode = FakeTensorMode(shape_env=shapes)
    # Whatever surrounds the first call, hooks, autocast or inference mode, is not part of the code.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        _no_autocast(inputs[0]),
        _no_hooks(),
        torch.autograd.set_detect_anomaly(False),  # would ask stand-ins for their values
    ):
        symbolic = [_symbolic(value, f'x{i}', mode) for i, value in enumerate(inputs)]
        # Inductor's cache keeps guards on integer inputs only, so sizes have to be such.
        sizes = sizes_of(symbolic)
        passed = [place for place, size in enumerate(sizes) if isinstance(size, torch.SymInt)]
        symbols = [sizes[place] for place in passed]
        first, many = size_class(symbolic[0])
        options: dict[str, Any] = {'size_asserts': False}  # sizes and strides are those of our key
        if on_gpu(symbolic[0]):
            # Small kernels that do not depend on each other become one launch. Not in the last
            # attempt: torch 2.11 fails on some that sum over a symbolic size with a bound.
            options['combo_kernels'] = tuning != TUNINGS[-1]
            if many:
                options['max_fusion_size'] = _FUSED
        else:
            # As an option, the number of threads becomes part of the key of Inductor's cache,
            # which it is not by itself.
            options['cpp.threads'] = first
        made: list[Callable] = []
        flat = _flat(step, args, len(passed), made)
        table = {**select_decomp_table(), torch.ops.aten.diagonal_backward.default: _to_diagonal}
        graph = make_fx(flat, table, tracing_mode='symbolic')(*symbols, *symbolic)
        graph.shape_env = None  # Inductor's cache cannot hash it, and the inputs have it
        if tuning and on_gpu(symbolic[0]) and _is_of_a_norm(args, inputs):
            instances, channels = _TUNED_TO[many]
            plan = next(arg for arg in args if isinstance(arg, Plan))
            crowded = plan.dtype == torch.float64 or plan.batch_from is None
            if crowded and first == len(_PIXELS) and not many:
                channels //= _FEWER
            _tune_to(instances, channels // tuning, symbolic, shapes)
        yield Traced(graph, [*symbols, *symbolic], passed, options, mode, made[0])


def _sizes() -> Any:
    """What knows the symbols, and the guards on them."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    class Sizes(ShapeEnv):
        def produce_guards(self, *args: Any, **kwargs: Any) -> list[str]:
            # Torch (2.11) joins them by "and", here and for Inductor's cache: one that is an "or"
            # would be true in place of all before it, and code would serve any layout.
            return [f'({guard})' for guard in super().produce_guards(*args, **kwargs)]

    return Sizes(duck_shape=False)  # N = C in the first batch must not mean always


def _is_of_a_norm(args: Sequence[Any], inputs: Sequence[Input]) -> bool:
    """Whether a step's first argument is of x's size, and no size is an argument."""
    tensors = all(isinstance(value, Tensor) for value in inputs)
    return tensors and inputs[0].dim() > 2 and any(isinstance(arg, Plan) for arg in args)


def _tune_to(instances: int, channels: int, symbolic: Sequence[Any], shapes: Any) -> None:
    """Have Inductor choose blocks for such sizes, in place of those that happened to come first.

    Other sizes, such as the channels of the batch norm part of IBN, keep their share of C.
    """
    from sympy import Integer

    # torch before 2.10 has it under the older name.
    hints = shapes.backed_var_to_val if hasattr(shapes, 'backed_var_to_val') else shapes.var_to_val

    def symbols_of(sizes: Iterable[Any]) -> set[Any]:
        nodes = (size.node for size in sizes if isinstance(size, torch.SymInt))
        return {symbol for node in nodes for symbol in shapes.replace(node.expr).free_symbols}

    maps = [t for t in symbolic if t.dim() > 2]  # x, and what is of its size
    of_instances = symbols_of(t.shape[0] for t in maps)
    of_pixels = symbols_of(size for t in maps for size in t.shape[2:])
    first = symbolic[0].shape[1]
    known = first
    if isinstance(first, torch.SymInt):
        known = hints.get(shapes.replace(first.node.expr))
        if known is None:  # a constant of the step: what ranks gathered is (R, 3, C)
            return
    for symbol, hint in list(hints.items()):
        if symbol in of_instances:
            hints[symbol] = Integer(instances)
        elif symbol not in of_pixels and hint > 1:
            hints[symbol] = Integer(max(2, int(hint) * channels // int(known)))


def _start_autograd() -> None:
    """Let autograd count the devices, once and for all, before fake tensors pretend one.

    Where there is no GPU, ``FakeTensorMode`` registers one. A first backward after it would start
    a thread for that GPU, and no forked process could run a backward any more.
    """
    if not torch.cuda.is_available():
        with torch.inference_mode(False), torch.enable_grad():
            torch.zeros((), requires_grad=True).backward()


def flattened(result: tuple) -> tuple[list[Tensor | None], Callable[[Sequence], Any]]:
    """What a step returns as a list, and how to make of such a list what it returns."""
    kind = getattr(type(result), '_make', tuple)
    *first, last = result
    if not isinstance(last, tuple):
        return list(result), kind
    count = len(first)
    return [*first, *last], lambda flat: kind((*flat[:count], tuple(flat[count:])))


def _flat(step: Callable, args: Sequence[Any], skipped: int, made: list[Callable]) -> Callable:
    """``step`` as a function of the inputs among ``args`` alone, after ``skipped`` others.

    It returns a list, and appends to ``made`` how to undo that.
    """
    leaves, structure = pytree.tree_flatten(args)

    def flat(*inputs: Input) -> list[Tensor | None]:
        replaced = iter(inputs[skipped:])
        own = [
            next(replaced) if isinstance(leaf, Tensor) or may_vary(leaf) else leaf
            for leaf in leaves
        ]
        results, shaped = flattened(step(*pytree.tree_unflatten(own, structure)))
        made.append(shaped)
        return results

    return flat


def _symbolic(value: Input, name: str, mode: Any) -> Any:
    """A stand-in of ``value`` with symbols for its sizes."""
    from torch._dynamo.source import LocalSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    source = LocalSource(name)
    if isinstance(value, int):
        symbol = mode.shape_env.create_symbol(value, source, DimDynamic.DYNAMIC)
        return mode.shape_env.create_symintnode(symbol, hint=value, source=source)
    dim = value.dim()
    context = StatelessSymbolicContext(
        dynamic_sizes=[DimDynamic.DYNAMIC] * dim,
        dynamic_strides=[DimDynamic.INFER_STRIDE] * dim,
        constraint_sizes=[None] * dim,
        constraint_strides=[None] * dim,
    )
    if value.is_inference():  # code made under inference mode serves outside, and may write
        value = torch.empty_strided(
            value.shape, value.stride(), dtype=value.dtype, device=value.device
        )
    # An alias: of a tensor given twice, as y.backward(x) may do, there would be one stand-in only.
    return mode.from_tensor(value.detach(), source=source, symbolic_context=context)


def _to_diagonal(
    grad: Tensor, sizes: Sequence[int], offset: int, first: int, second: int
) -> Tensor:
    """The gradient of the main diagonals of the last two axes, without a write to a view.

    Inductor (torch 2.11) fails on that.
    """
    rows, columns = sizes[-2:]
    if offset != 0 or {first % len(sizes), second % len(sizes)} != {len(sizes) - 2, len(sizes) - 1}:
        return NotImplemented
    return grad.unsqueeze(-1) * torch.eye(rows, columns, dtype=grad.dtype, device=grad.device)


def _no_autocast(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _no_hooks() -> torch.autograd.graph.saved_tensors_hooks:
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
