"""The steps as Inductor compiles them, called without Dynamo.

``torch.compile`` would do the same, but checks its guards at every call: for tiny maps that takes
longer than the step. Here a step is traced once for symbolic sizes, compiled, and afterwards found
by the description of its arguments in a dictionary; only for sizes not seen before are the guards
evaluated that tracing and Inductor laid down, such as "at least 2 instances".
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normplug.ops.memory import on_gpu
from normplug.ops.traced import TUNINGS, Input, may_vary, size_class, sizes_of, trace

__all__ = ['CompilationError', 'call', 'count', 'forget']

_MOST_GRAPHS = 256  # of one step; norm types, arguments, dtypes and layouts need some dozens
_MOST_SIZES = 4096
_SMALL = 2**20  # values, of which a copy costs nothing beside a compilation

Step = Callable[..., tuple]

_graphs: dict[Hashable, list['_Graph']] = {}  # by what does not vary with the sizes
_known: dict[Hashable, tuple['_Graph', list[int]]] = {}  # by all of the arguments; sizes to pass
_failed: dict[Hashable, str] = {}  # kinds that could not be compiled, and why
_lock = threading.Lock()  # backward has a thread of its own on a GPU
_counts: Counter[str] = Counter()  # graphs, by device type


class _Graph(NamedTuple):
    """Compiled code, and the sizes for which it is right.

    Attributes:
        function: takes sizes and inputs, in a list that it empties.
        passed: which of all sizes and strides it takes.
        fits: whether it may be called with these inputs.
        shaped: makes of a list of results what the step returns.
    """

    function: Callable[[list[Input]], Sequence[Tensor | None]]
    passed: Sequence[int]
    fits: Callable[[Sequence[Input]], bool]
    shaped: Callable[[Sequence[Tensor | None]], Any]


class CompilationError(Exception):
    """The compiler raised, or there is none."""


def call(step: Step, args: Sequence[Any]) -> Any:
    """``step(*args)``, compiled.

    Args:
        step: returns a tuple, or NamedTuple, of tensors and None; the last may be a tuple of them.
        args: tensors, integers, constants, and tuples or lists of them; the first is a tensor.
            Sizes, and integers greater than 1, may vary without another compilation.

    Raises:
        CompilationError: it could not be compiled, or a constant is not hashable or another at
            each call.
    """
    inputs: list[Input] = []
    key: list[Hashable] = [step, *size_class(args[0])]
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
    return graph.shaped(graph.function([*sizes, *inputs]))


def count(device_type: str | None = None) -> int:
    """How many graphs this process has compiled, for all devices or for those of one type."""
    return _counts.total() if device_type is None else _counts[device_type]


def forget() -> None:
    """Drop all compiled code; files in Inductor's cache stay."""
    with _lock:
        _graphs.clear()
        _known.clear()
        _failed.clear()


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
        elif may_vary(arg):
            inputs.append(arg)
            key += (int, arg if exactly else None)
        elif isinstance(arg, (tuple, list)):
            key += (tuple, len(arg))
            _describe(arg, inputs, key, exactly)
        elif isinstance(arg, partial):  # equal where what it binds is equal
            key.append((arg.func, arg.args, *arg.keywords.items()))
        else:
            key.append(arg)


def _find(
    step: Step, args: Sequence[Any], inputs: Sequence[Input], exact: tuple
) -> tuple[_Graph, list[int]]:
    """The graph for these arguments: one compiled before for other sizes, or a new one."""
    key: list[Hashable] = [step, *size_class(args[0])]
    _describe(args, [], key, exactly=False)
    coarse = tuple(key)
    with _lock:
        graphs = _graphs.get(coarse, [])
        graph = next((graph for graph in graphs if graph.fits(inputs)), None)
        if graph is None:
            graph = _add(coarse, step, args, inputs)
        if len(_known) >= _MOST_SIZES:
            _known.clear()
        sizes = sizes_of(inputs)
        _known[exact] = known = graph, [sizes[place] for place in graph.passed]
    return known


def _add(coarse: Hashable, step: Step, args: Sequence[Any], inputs: Sequence[Input]) -> _Graph:
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
        graph = _made(step, args, inputs)
    except torch.OutOfMemoryError:  # says nothing of the code
        raise
    except Exception as error:  # a rule and a compiler can fail in any way
        first = str(error).strip().split('\n', 1)[0]
        reason = f'{step.__name__}: {type(error).__name__}: {first}'
        if len(_failed) < _MOST_GRAPHS:
            _failed[coarse] = reason
        raise CompilationError(reason) from error
    _graphs.setdefault(coarse, []).append(graph)
    _counts[args[0].device.type] += 1
    return graph


def _try_out(graph: _Graph, inputs: Sequence[Input]) -> None:
    """Launch new code once, so that what the device refuses is found where eager code can follow.

    It may write running statistics, which are small: it gets copies. A result of x's size is
    written again.
    """
    full = inputs[0].shape

    def copied(t: Input) -> Input:
        # A running matrix may have the very shape of a small x. What has gaps or is expanded no
        # step writes, and a copy of it would have other strides than the code is given.
        small = isinstance(t, Tensor) and (t.shape != full or t.numel() <= _SMALL)
        return t.clone() if small and t.is_contiguous() else t

    copies = [copied(t) for t in inputs]
    sizes = sizes_of(inputs)
    graph.function([*(sizes[place] for place in graph.passed), *copies])


def _made(step: Step, args: Sequence[Any], inputs: Sequence[Input]) -> _Graph:
    """Compiled code that runs; on a GPU, of the first tuning that gives some."""
    gpu = on_gpu(args[0])
    for tuning in TUNINGS if gpu else TUNINGS[-1:]:
        try:
            graph = _compile(step, args, inputs, tuning)
            if not graph.fits(inputs):  # launched all the same, it could write anywhere
                raise RuntimeError('the compiler relied on a size that is another one')
            if gpu:
                _try_out(graph, inputs)
        except torch.OutOfMemoryError:  # says nothing of the code
            raise
        except Exception:  # Triton (3.6) fails on some large blocks, and not on smaller ones
            if tuning == TUNINGS[-1]:
                raise
        else:
            break
    return graph


def _compile(step: Step, args: Sequence[Any], inputs: Sequence[Input], tuning: int) -> _Graph:
    # Imported here: with Inductor they take seconds, which an eager process need not wait.
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner

    with trace(step, args, inputs, tuning) as traced:
        with tracing(TracingContext(traced.mode)), config.patch(traced.options):
            function = compile_fx_inner(traced.graph, traced.inputs)
        return _Graph(function, traced.passed, traced.guards(), traced.shaped)
