"""The steps as Inductor compiles them, called without Dynamo.

``torch.compile`` would do the same, but checks its guards at every call: for tiny maps that takes
longer than the step. Here a step is traced once for symbolic sizes, compiled, and afterwards found
by the description of its arguments in a dictionary; only for sizes not seen before are the guards
evaluated that tracing and Inductor laid down, such as "at least 2 instances".
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ['CompilationError', 'call', 'count', 'forget']

_MOST_GRAPHS = 256  # of one step; norm types, arguments, dtypes and layouts need some dozens
_MOST_SIZES = 4096
_SMALL = 32768  # values; ATen too starts no threads for fewer
_LONG = 4096  # pixels; Inductor sums more by a slower loop that loses fewer digits

Step = Callable[..., Sequence[Tensor | None]]
Input = Tensor | int  # of compiled code

_graphs: dict[Hashable, list['_Graph']] = {}  # by what does not vary with the sizes
_known: dict[Hashable, '_Graph'] = {}  # by all of the arguments
_lock = threading.Lock()  # backward has a thread of its own on a GPU
_count = 0


class _Graph(NamedTuple):
    """Compiled code, and the sizes for which it is right."""

    function: Callable[[list[Input]], Sequence[Tensor | None]]  # empties the list
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
        CompilationError: it could not be compiled.
        RuntimeError: the constants are others at each call.
    """
    inputs: list[Input] = []
    key: list[Hashable] = [step, _class(args[0])]
    _describe(args, inputs, key)
    exact = tuple(key)
    graph = _known.get(exact)
    if graph is None:
        graph = _find(step, args, inputs, exact)
    return graph.function(inputs)


def count() -> int:
    """How many graphs this process has compiled."""
    return _count


def forget() -> None:
    """Drop all compiled code; files in Inductor's cache stay."""
    with _lock:
        _graphs.clear()
        _known.clear()


def _class(x_n: Tensor) -> tuple[bool, bool]:
    """What code for a CPU is specialized to besides: too small for threads; long sums."""
    if x_n.device.type != 'cpu':
        return False, False
    return x_n.numel() < _SMALL, x_n[0, 0].numel() > _LONG


class _OfTensor(tuple):
    """The part of a key that stands for a tensor: (dtype, device, shape, stride)."""

    __slots__ = ()


class _OfInt(int):
    """The part of a key that stands for an integer which may vary."""


def _describe(args: Sequence[Any], inputs: list[Input], key: list[Hashable]) -> None:
    """Append what the code takes as inputs, and all that it depends on."""
    for arg in args:
        if isinstance(arg, Tensor):
            inputs.append(arg)
            key.append(_OfTensor((arg.dtype, arg.device, arg.shape, arg.stride())))
        elif _may_vary(arg):
            inputs.append(arg)
            key.append(_OfInt(arg))
        elif isinstance(arg, (tuple, list)):
            key.append(len(arg))
            _describe(arg, inputs, key)
        elif isinstance(arg, partial):  # equal where what it binds is equal
            key.append((arg.func, arg.args, *arg.keywords.items()))
        else:
            key.append(arg)


def _may_vary(arg: Any) -> bool:
    return type(arg) is int and arg > 1


def _coarse(part: Hashable) -> Hashable:
    if isinstance(part, _OfTensor):
        dtype, device, shape, _ = part
        return dtype, device, len(shape)
    return int if isinstance(part, _OfInt) else part


def _find(step: Step, args: Sequence[Any], inputs: Sequence[Input], exact: tuple) -> _Graph:
    """The graph for these arguments: one compiled before for other sizes, or a new one."""
    global _count
    with _lock:
        graphs = _graphs.setdefault(tuple(map(_coarse, exact)), [])
        graph = next((graph for graph in graphs if graph.fits(inputs)), None)
        if graph is None:
            _check_that_constants_recur(step)
            try:
                graph = _compile(step, args, inputs)
            except Exception as error:
                first = str(error).strip().split('\n', 1)[0]
                raise CompilationError(
                    f'{step.__name__}: {type(error).__name__}: {first}'
                ) from error
            graphs.append(graph)
            _count += 1
        if len(_known) >= _MOST_SIZES:
            _known.clear()
        _known[exact] = graph
    return graph


def _check_that_constants_recur(step: Step) -> None:
    if sum(len(graphs) for key, graphs in _graphs.items() if key[0] is step) >= _MOST_GRAPHS:
        raise RuntimeError(
            f'{step.__name__} was compiled {_MOST_GRAPHS} times: a rule must be a function of a '
            'module, or a functools.partial of one with arguments that compare equal, not a new '
            'function at each call'
        )


def _compile(step: Step, args: Sequence[Any], inputs: Sequence[Input]) -> _Graph:
    # Imported here: with Inductor they take seconds, which an eager process need not wait.
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    shapes = ShapeEnv(duck_shape=False)  # N = C in the first batch must not mean always
    mode = FakeTensorMode(shape_env=shapes)
    # The number of threads is compiled in, but no part of the key of Inductor's cache; sizes and
    # strides are those of the key.
    is_small, _ = _class(inputs[0])
    options = {'cpp.threads': 1 if is_small else torch.get_num_threads(), 'size_asserts': False}
    # Whatever surrounds the first call, hooks, autocast or inference mode, is not part of the code.
    with torch.inference_mode(False), torch.no_grad(), _no_autocast(inputs[0]), _no_hooks():
        symbolic = [_symbolic(value, f'x{i}', mode) for i, value in enumerate(inputs)]
        trace = make_fx(_flat(step, args), select_decomp_table(), tracing_mode='symbolic')
        with tracing(TracingContext(mode)), config.patch(options):
            function = compile_fx_inner(trace(*symbolic), symbolic)
        guards = shapes.produce_guards_expression(symbolic, ignore_static=False)
    code: CodeType = compile(guards, '<guards>', 'eval')
    return _Graph(function, lambda inputs: shapes.evaluate_guards_expression(code, inputs))


def _flat(step: Step, args: Sequence[Any]) -> Step:
    """``step`` as a function of the inputs among ``args`` alone."""
    leaves, structure = pytree.tree_flatten(args)

    def flat(*inputs: Input) -> Sequence[Tensor | None]:
        replaced = iter(inputs)
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
    return mode.from_tensor(value, source=source, symbolic_context=context)


def _no_autocast(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _no_hooks() -> torch.autograd.graph.saved_tensors_hooks:
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
