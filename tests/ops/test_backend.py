"""The compiled backend computes what the eager one does, for any size, by few compilations."""

import os
import subprocess
import sys
import warnings
from collections import Counter

import pytest
import torch
from torch.utils import _pytree as pytree

import normplug
from normplug import IBN, SN
from normplug.ops import compiled as code
from normplug.ops.compiled import CompilationError


@pytest.fixture
def compiled():
    """The compiled backend, with nothing compiled yet; counts what is."""
    code.forget()
    normplug.set_backend('compiled')
    before = code.count()
    yield lambda: code.count() - before
    code.forget()


def step(layer, x, dy, backend):
    """Train one step; return y, all gradients and the state."""
    normplug.set_backend(backend)
    x = x.clone().requires_grad_()
    y = layer(x)
    grads = torch.autograd.grad(y, [x, *layer.parameters()], dy)
    return [y, *grads, *(buffer.clone() for buffer in layer.buffers())]


def twins(kind, channels):
    """Two equal layers of random parameters."""
    layer, twin = kind(channels), kind(channels)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    twin.load_state_dict(layer.state_dict())
    return layer, twin


@pytest.mark.slow
@pytest.mark.parametrize('kind', [SN, IBN])
def test_the_same_as_eager_at_any_size(kind, compiled):
    sizes = [(2, 6, 9, 7), (3, 8, 5, 5), (2, 3, 17, 4), (4, 64, 13, 21), (2, 16, 30, 31)]
    for shape in sizes:
        x, dy = 3 * torch.randn(shape) + 5, torch.randn(shape)
        layer, twin = twins(kind, shape[1])
        for ours, eager in zip(
            step(layer, x, dy, 'compiled'), step(twin, x, dy, 'eager'), strict=True
        ):
            assert ours.stride() == eager.stride()
            largest = eager.abs().max().clamp(min=1)
            assert torch.allclose(ours / largest, eager / largest, rtol=0, atol=2e-5)
    # Forward and backward, each at most a few times over.
    assert 2 <= compiled() <= 6


@pytest.mark.slow
def test_large_mean(compiled):
    """What eager keeps at |mean|/std = 1e4, compiled keeps."""
    x, dy = torch.randn(2, 8, 40, 40, dtype=torch.float64) + 1e4, torch.randn(2, 8, 40, 40)
    layer, twin = twins(SN, 8)
    single = step(layer, x.float(), dy, 'compiled')[:2]
    exact = step(twin.double(), x.float().double(), dy.double(), 'eager')[:2]
    for ours, truth in zip(single, exact, strict=True):
        assert (ours.double() - truth).abs().max() < 1e-4 * truth.abs().max()


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match='must be one of auto, eager, compiled'):
        normplug.set_backend('fast')
    assert normplug.get_backend() == 'eager'


def test_the_environment_variable_is_checked():
    done = subprocess.run(
        [sys.executable, '-c', 'import normplug'],
        env={**os.environ, 'NORMPLUG_BACKEND': 'fast'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert 'environment variable NORMPLUG_BACKEND: the backend must be one of' in done.stderr


def test_where_nothing_compiles(monkeypatch):
    """auto warns once and runs eagerly; compiled raises."""

    def broken(*_):
        raise RuntimeError('no compiler')

    monkeypatch.setattr('normplug.ops.compiled._compile', broken)
    x, layer = torch.randn(2, 4, 3, 3), SN(4)
    eager = layer(x)
    try:
        normplug.set_backend('compiled')
        with pytest.raises(CompilationError):
            layer(x)
        normplug.set_backend('auto')
        with pytest.warns(UserWarning, match='run uncompiled, and slower') as caught:
            assert torch.equal(layer(x), eager)
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            layer(x)
    finally:
        normplug.set_backend('eager')
        code.forget()  # that it failed


@pytest.fixture
def gpu(monkeypatch):
    """Tensors here as on a GPU with a compiler; gives a way to say what its code does."""

    def behave(function):
        def made(step, args, inputs, tuning):
            return code._Graph(
                lambda values: function(step, args, values),
                [],
                lambda _: True,
                lambda results: results,
            )

        monkeypatch.setattr(code, '_compile', made)

    for module in ('compiled', 'traced'):
        monkeypatch.setattr(f'normplug.ops.{module}.on_gpu', lambda x: True)
    code.forget()
    yield behave
    normplug.set_backend('eager')
    code.forget()


def test_a_broken_compiler_of_a_gpu_is_given_up_though_that_of_the_cpu_works(monkeypatch):
    asked = []

    def broken(step, *_):
        asked.append(step)
        raise RuntimeError('no compiler')

    monkeypatch.setattr(code, '_compile', broken)
    monkeypatch.setattr(code, '_counts', Counter({'cuda': 3}))  # x's device: cpu, the other: cuda
    code.forget()
    try:
        normplug.set_backend('auto')
        with pytest.warns(UserWarning, match='run uncompiled'):
            SN(4)(torch.randn(2, 4, 3, 3))
        IBN(4)(torch.randn(2, 4, 3, 3))
        assert len(asked) == 1
        normplug.set_backend('auto')
        monkeypatch.setattr(code, '_counts', Counter({'cpu': 3}))  # here it has worked: go on
        code.forget()
        with pytest.warns(UserWarning, match='run uncompiled'):
            SN(4)(torch.randn(2, 4, 3, 3))
        IBN(4)(torch.randn(2, 4, 3, 3))
        assert len(asked) == 3
    finally:
        normplug.set_backend('eager')
        code.forget()


def test_a_failed_first_launch_falls_back_and_moves_running_statistics_once(gpu):
    def write_then_fail(step, args, values):
        for value in values:
            if isinstance(value, torch.Tensor) and value.dim() == 1:
                value.add_(100)
        raise RuntimeError('too many resources requested for launch')

    gpu(write_then_fail)
    x, (layer, twin) = torch.randn(2, 4, 3, 3), twins(SN, 4)
    normplug.set_backend('eager')
    want = twin(x)
    normplug.set_backend('compiled')
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    with pytest.raises(CompilationError, match='too many resources'):
        layer(x)
    for name, t in layer.state_dict().items():
        assert torch.equal(t, before[name]), name
    normplug.set_backend('auto')
    with pytest.warns(UserWarning, match='too many resources requested for launch'):
        got = layer(x)
    assert torch.equal(got, want)
    for name, t in layer.state_dict().items():
        assert torch.equal(t, twin.state_dict()[name]), name


def test_a_first_launch_moves_running_statistics_once(gpu):
    launched = []

    def work(step, args, values):  # with the inputs given, which may be copies
        launched.append(step)
        given = iter(values)
        leaves, structure = pytree.tree_flatten(args)
        own = [
            next(given) if isinstance(t, torch.Tensor) or code.may_vary(t) else t for t in leaves
        ]
        return step(*pytree.tree_unflatten(own, structure))

    gpu(work)
    x, (layer, twin) = torch.randn(2, 4, 3, 3), twins(SN, 4)
    normplug.set_backend('eager')
    want = twin(x)
    normplug.set_backend('compiled')
    got = layer(x)
    assert len(launched) == 2  # tried out, and called
    assert torch.equal(got, want)
    for name, t in layer.state_dict().items():
        assert torch.equal(t, twin.state_dict()[name]), name


@pytest.mark.parametrize('fault', ['compiler', 'launch', 'guards'])
def test_code_that_fails_is_made_again_with_smaller_blocks(gpu, monkeypatch, fault):
    """Triton 3.6 cannot compile the sums of SyncSSN in the blocks that suit other steps.

    A device may refuse combined kernels. Code that does not admit its own sizes is never launched.
    """
    gpu(lambda step, args, values: step(*args))
    works, asked, refused = code._compile, [], []

    def refuse(values):
        refused.append(values)
        raise RuntimeError('too many resources requested for launch')

    def picky(step, args, inputs, tuning):
        asked.append(tuning)
        graph = works(step, args, inputs, tuning)
        if tuning != 1:
            return graph
        if fault == 'compiler':
            raise RuntimeError('PassManager::run failed')
        return graph._replace(function=refuse, fits=lambda _: fault != 'guards')

    monkeypatch.setattr(code, '_compile', picky)
    normplug.set_backend('compiled')
    SN(4)(torch.randn(2, 4, 3, 3))
    assert asked == [1, 8]
    assert len(refused) == (fault == 'launch')


def test_out_of_memory_is_no_fault_of_the_code(gpu):
    full = [True]

    def work(step, args, values):
        if full[0]:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return step(*args)

    gpu(work)
    x, layer = torch.randn(2, 4, 3, 3), SN(4)
    normplug.set_backend('auto')
    with pytest.raises(torch.OutOfMemoryError):
        layer(x)
    full[0] = False
    normplug.set_backend('compiled')  # which would raise again what was remembered
    layer(x)


FORKED = """
import multiprocessing, torch
from normplug.norms import SN
def step():
    SN(4)(torch.randn(2, 4, 8, 8, requires_grad=True)).square().sum().backward()
step()
child = multiprocessing.get_context('fork').Process(target=step)
child.start()
child.join(60)
raise SystemExit(child.exitcode)
"""


@pytest.mark.slow
def test_a_forked_process_runs_backward():
    """As of torch's norms; the first backward of the parent comes after a compilation."""
    environment = {**os.environ, 'NORMPLUG_BACKEND': 'compiled'}
    subprocess.run([sys.executable, '-c', FORKED], env=environment, check=True, timeout=300)
