"""The steps as Inductor compiles them, called without Dynamo.

``torch.compile`` would do the same, but checks its guards at every call: for tiny maps that takes
longer than the step. Here a step is traced once for symbolic sizes, compiled, and afterwards found
by the description of its arguments in a dictionary; only for sizes not seen before are the guards
evaluated that tracing and Inductor laid down, such as "at least 2 instances".
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from math import prod
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from normplug.ops.blocked import SMALL

__all__ = ['CompilationError', 'call', 'count', 'forget']

_MOST_GRAPHS = 256  # of one step; norm types, arguments, dtypes and layouts need some dozens
_MOST_SIZES = 4096
_LONG = 4096  # pixels; Inductor sums more by a slower loop that loses fewer digits

Step = Callable[..., Sequence[Tensor | None]]
Input = Tensor | int  # of compiled code

_graphs: dict[Hashable, list['_Graph']] = {}  # by what does not vary with the sizes
_known: dict[Hashable, tuple['_Graph', list[int]]] = {}  # by all of the arguments; sizes to pass
_failed: dict[Hashable, str] = {}  # kinds that could not be compiled, and why
_lock = threading.Lock()  # backward has a thread of its own on a GPU
_count = 0


class _Graph(NamedTuple):
    """Compiled code, and the sizes for which it is right.

    Attributes:
        function: takes sizes and inputs, in a list that it empties.
        passed: which of all sizes and strides it takes.
        fits: whether it may be called with these inputs.
    """

    function: Callable[[list[Input]], Sequence[Tensor | None]]
    passed: Sequence[int]
    fits: Callable[[Sequence[Input]], bool]


class CompilationError(Exception):
    """The compiler raised, or there is none."""


def call(step: Step, args: Sequence[Any]) -> Sequence[Tensor | None]:
    """``step(*args)``, compiled.

    Args:
        step: returns a flat tuple of tensors and None.
        args: tensors, integers, constants, and tuples or lists of them; the first is a tensor.
            Sizes, and integers greater than 1, may vary without another compilation.

    Raises:
        CompilationError: it could not be compiled, or a constant is not hashable or another at
            each call.
    """
    inputs: list[Input] = []
    key: list[Hashable] = [step, *_class(args[0])]
    _describe(args, inputs, key)
    exact = tuple(key)
    try:
        known = _known.get(exact)
    except TypeError as error:
        raise CompilationError(
            f'{step.__name__}: {error}: what functools.partial binds to a rule must be hashable, '
            'such as a number, a string or a tuple'
        ) from error
    if known is None:
        known = _find(step, args, inputs, exact)
    graph, sizes = known
    return graph.function([*sizes, *inputs])


def count() -> int:
    """How many graphs this process has compiled."""
    return _count


def forget() -> None:
    """Drop all compiled code; files in Inductor's cache stay."""
    with _lock:
        _graphs.clear()
        _known.clear()
        _failed.clear()


def _class(x_n: Tensor) -> tuple[int, bool]:
    """What code for a CPU is specialized to besides: its number of threads; long sums."""
    if not x_n.is_cpu:
        return 0, False
    threads = 1 if x_n.numel() < SMALL else torch.get_num_threads()
    return threads, prod(x_n.shape[2:]) > _LONG


def _describe(
    args: Sequence[Any], inputs: list[Input], key: list[Hashable], exactly: bool = True
) -> None:
    """Append what the code takes as inputs, and all that it depends on.

    Tiny maps wait for this at every step. Not ``exactly``, sizes and strides are left out.
    """
    for arg in args:
        if arg is None or arg is True or arg is False:
            key.append(arg)
        elif isinstance(arg, Tensor):
            if arg.is_neg():  # the imaginary part of a conjugate: compiled code reads what is there
                arg = arg.resolve_neg()
            inputs.append(arg)
            sizes = (arg.shape, arg.stride()) if exactly else (arg.dim(),)
            key += (arg.dtype, arg.device, *sizes)
        elif _may_vary(arg):
            inputs.append(arg)
            key += (int, arg if exactly else None)
        elif isinstance(arg, (tuple, list)):
            key += (tuple, len(arg))
            _describe(arg, inputs, key, exactly)
        elif isinstance(arg, partial):  # equal where what it binds is equal
            key.append((arg.func, arg.args, *arg.keywords.items()))
        else:
            key.append(arg)


def _may_vary(arg: Any) -> bool:
    return type(arg) is int and arg > 1


def _find(
    step: Step, args: Sequence[Any], inputs: Sequence[Input], exact: tuple
) -> tuple[_Graph, list[int]]:
    """The graph for these arguments: one compiled before for other sizes, or a new one."""
    key: list[Hashable] = [step, *_class(args[0])]
    _describe(args, [], key, exactly=False)
    coarse = tuple(key)
    with _lock:
        graphs = _graphs.get(coarse, [])
        graph = next((graph for graph in graphs if graph.fits(inputs)), None)
        if graph is None:
            graph = _add(coarse, step, args, inputs)
        if len(_known) >= _MOST_SIZES:
            _known.clear()
        sizes = _sizes(inputs)
        _known[exact] = known = graph, [sizes[place] for place in graph.passed]
    return known


def _add(coarse: Hashable, step: Step, args: Sequence[Any], inputs: Sequence[Input]) -> _Graph:
    global _count
    if coarse in _failed:
        raise CompilationError(_failed[coarse])
    own = [graphs for key, graphs in _graphs.items() if key[0] is step]
    try:
        if sum(map(len, own)) >= _MOST_GRAPHS:
            raise RuntimeError(
                f'compiled {_MOST_GRAPHS} times: a rule must be a function of a module, or a '
                'functools.partial of one with arguments that compare equal, not a new function '
                'at each call'
            )
        graph = _compile(step, args, inputs)
    except Exception as error:  # a rule and a compiler can fail in any way
        first = str(error).strip().split('\n', 1)[0]
        reason = f'{step.__name__}: {type(error).__name__}: {first}'
        if len(_failed) < _MOST_GRAPHS:
            _failed[coarse] = reason
        raise CompilationError(reason) from error
    _graphs.setdefault(coarse, []).append(graph)
    _count += 1
    return graph


def _compile(step: Step, args: Sequence[Any], inputs: Sequence[Input]) -> _Graph:
    # Imported here: with Inductor they take seconds, which an eager process need not wait.
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    _start_autograd()
    shapes = ShapeEnv(duck_shape=False)  # N = C in the first batch must not mean always
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
        sizes = _sizes(symbolic)
        passed = [place for place, size in enumerate(sizes) if isinstance(size, torch.SymInt)]
        symbols = [sizes[place] for place in passed]
        # Asked of symbols, this becomes a guard: Inductor's cache keeps the classes apart too.
        threads, _ = _class(symbolic[0])
        # As an option, the number of threads becomes part of the key of that cache, which it is
        # not by itself. Sizes and strides are those of our key.
        options = {'cpp.threads': threads, 'size_asserts': False}
        flat = _flat(step, args, len(passed))
        trace = make_fx(flat, select_decomp_table(), tracing_mode='symbolic')
        graph = trace(*symbols, *symbolic)
        graph.shape_env = None  # Inductor's cache cannot hash it, and the inputs have it
        with tracing(TracingContext(mode)), config.patch(options):
            function = compile_fx_inner(graph, [*symbols, *symbolic])
        guards = shapes.produce_guards_expression(symbolic, ignore_static=False)
    code: CodeType = compile(guards, '<guards>', 'eval')
    return _Graph(function, passed, lambda inputs: shapes.evaluate_guards_expression(code, inputs))


def _start_autograd() -> None:
    """Let autograd count the devices, once and for all, before fake tensors pretend one.

    Where there is no GPU, ``FakeTensorMode`` registers one. A first backward after it would start
    a thread for that GPU, and no forked process could run a backward any more.
    """
    if not torch.cuda.is_available():
        with torch.inference_mode(False), torch.enable_grad():
            torch.zeros((), requires_grad=True).backward()


def _sizes(inputs: Sequence[Input]) -> list[int]:
    """Every size and stride."""
    return [
        size
        for value in inputs
        if isinstance(value, Tensor)
        for size in value.shape + value.stride()
    ]


def _flat(step: Step, args: Sequence[Any], skipped: int) -> Step:
    """``step`` as a function of the inputs among ``args`` alone, after ``skipped`` others."""
    leaves, structure = pytree.tree_flatten(args)

    def flat(*inputs: Input) -> Sequence[Tensor | None]:
        replaced = iter(inputs[skipped:])
        own = [
            next(replaced) if isinstance(leaf, Tensor) or _may_vary(leaf) else leaf
            for leaf in leaves
        ]
        return step(*pytree.tree_unflatten(own, structure))

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


def _no_autocast(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _no_hooks() -> torch.autograd.graph.saved_tensors_hooks:
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
