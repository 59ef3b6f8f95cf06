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

Step = Callable[..., Sequence[Tensor | None]]

_graphs: dict[Hashable, list['_Graph']] = {}  # by what does not vary with the sizes
_known: dict[Hashable, '_Graph'] = {}  # by all of the arguments
_lock = threading.Lock()  # backward has a thread of its own on a GPU
_count = 0


class _Graph(NamedTuple):
    """Compiled code, and the sizes for which it is right."""

    function: Callable[[list[Tensor]], Sequence[Tensor | None]]  # empties the list
    fits: Callable[[Sequence[Tensor]], bool]


class CompilationError(Exception):
    """The compiler raised, or there is none."""


def call(step: Step, args: Sequence[Any]) -> Sequence[Tensor | None]:
    """``step(*args)``, compiled.

    Args:
        step: returns a flat tuple of tensors and None.
        args: tensors, constants, and tuples or lists of them; the first is a tensor.

    Raises:
        CompilationError: it could not be compiled.
        RuntimeError: the constants are others at each call.
    """
    tensors: list[Tensor] = []
    key: list[Hashable] = [step, args[0].numel() < _SMALL]
    _describe(args, tensors, key)
    exact = tuple(key)
    graph = _known.get(exact)
    if graph is None:
        graph = _find(step, args, tensors, exact)
    return graph.function(tensors)


def count() -> int:
    """How many graphs this process has compiled."""
    return _count


def forget() -> None:
    """Drop all compiled code; files in Inductor's cache stay."""
    with _lock:
        _graphs.clear()
        _known.clear()


def _describe(args: Sequence[Any], tensors: list[Tensor], key: list[Hashable]) -> None:
    """Append the tensors of ``args``, and all that code compiled for them depends on."""
    for arg in args:
        if isinstance(arg, Tensor):
            tensors.append(arg)
            key.append(_Tensor((arg.dtype, arg.device, arg.shape, arg.stride())))
        elif isinstance(arg, (tuple, list)):
            key.append(len(arg))
            _describe(arg, tensors, key)
        elif isinstance(arg, partial):  # equal where what it binds is equal
            key.append(arg.func)
            _describe(arg.args, tensors, key)
            key.append(tuple(arg.keywords.items()))
        else:
            key.append(arg)


class _Tensor(tuple):
    """The part of a key that stands for a tensor: (dtype, device, shape, stride)."""

    __slots__ = ()


def _find(step: Step, args: Sequence[Any], tensors: Sequence[Tensor], exact: tuple) -> _Graph:
    """The graph for these arguments: one compiled before for other sizes, or a new one."""
    coarse = tuple(
        (part[0], part[1], len(part[2])) if isinstance(part, _Tensor) else part for part in exact
    )
    global _count
    with _lock:
        graphs = _graphs.setdefault(coarse, [])
        graph = next((graph for graph in graphs if graph.fits(tensors)), None)
        if graph is None:
            _check_that_constants_recur(step)
            try:
                graph = _compile(step, args, tensors)
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


def _compile(step: Step, args: Sequence[Any], tensors: Sequence[Tensor]) -> _Graph:
    # Imported here: with Inductor they take seconds, which an eager process need not wait.
    from torch._dynamo.source import LocalSource
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    shapes = ShapeEnv(duck_shape=False)  # N = C in the first batch must not mean always
    mode = FakeTensorMode(shape_env=shapes)
    # Whatever surrounds the first call, hooks, autocast or inference mode, is not part of the code.
    with torch.inference_mode(False), torch.no_grad(), _no_autocast(tensors), _no_hooks():
        fakes = [
            mode.from_tensor(
                tensor, source=LocalSource(f'x{i}'), symbolic_context=_all_dynamic(tensor.dim())
            )
            for i, tensor in enumerate(tensors)
        ]
        trace = make_fx(_flat(step, args), select_decomp_table(), tracing_mode='symbolic')
        # The number of threads is compiled in, but no part of the key of Inductor's cache; sizes
        # and strides are those of the key.
        threads = 1 if tensors[0].numel() < _SMALL else torch.get_num_threads()
        options = {'cpp.threads': threads, 'size_asserts': False}
        with tracing(TracingContext(mode)), config.patch(options):
            function = compile_fx_inner(trace(*fakes), fakes)
        guards = shapes.produce_guards_expression(fakes, ignore_static=False)
    code: CodeType = compile(guards, '<guards>', 'eval')
    return _Graph(function, lambda tensors: shapes.evaluate_guards_expression(code, tensors))


def _flat(step: Step, args: Sequence[Any]) -> Step:
    """``step`` as a function of the tensors of ``args`` alone."""
    leaves, structure = pytree.tree_flatten(args)

    def flat(*tensors: Tensor) -> Sequence[Tensor | None]:
        replaced = iter(tensors)
        own = [next(replaced) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return step(*pytree.tree_unflatten(own, structure))

    return flat


def _all_dynamic(dim: int) -> Any:
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    return StatelessSymbolicContext(
        dynamic_sizes=[DimDynamic.DYNAMIC] * dim,
        dynamic_strides=[DimDynamic.INFER_STRIDE] * dim,
        constraint_sizes=[None] * dim,
        constraint_strides=[None] * dim,
    )


def _no_autocast(tensors: Sequence[Tensor]) -> torch.autocast:
    return torch.autocast(tensors[0].device.type, enabled=False)


def _no_hooks() -> torch.autograd.graph.saved_tensors_hooks:
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
