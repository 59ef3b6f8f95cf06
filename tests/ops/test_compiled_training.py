"""The compiled backend in training: what surrounds a layer, and when it is first compiled.

Graphs are kept from test to test; a test about the first compilation forgets them.
"""

import copy
import pickle
import threading
import warnings
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import normplug
from normplug import SN, BaseNorm, precision
from normplug.ops import compiled as code
from normplug.stats import standardize
from tests.cases import TOLERANCE, assert_same, random_input

FLOAT32 = TOLERANCE[torch.float32]
SHAPE = (2, 6, 9, 7)


def layer_of(channels=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    layer = SN(channels).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def network():
    """Both places of a norm: before an activation in place, and last."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), layer_of(), nn.ReLU(inplace=True))
    return nn.Sequential(block, nn.Conv2d(6, 6, 1), layer_of())


def step(model, x, dy, forward=None):
    """One step: the output, what gradients there are, and the state that remains."""
    y = (forward or model)(x)
    if y.requires_grad:
        y.backward(dy)
    tensors = {'y': y.detach(), **dict(model.named_buffers())}
    grads = {'dx': x.grad, **{name: p.grad for name, p in model.named_parameters()}}
    return {**tensors, **{f'grad.{n}': g for n, g in grads.items() if g is not None}}


def batch(dtype=torch.float32, requires_grad=True, seed=1):
    x, dy = (random_input(SHAPE, seed=s).to(dtype) for s in (seed, seed + 100))
    return x.requires_grad_(requires_grad), dy


def assert_equal_backends(scenario, tolerance, **magnitude):
    """``scenario()`` gives the same tensors by both backends; it builds all that it needs."""
    normplug.set_backend('eager')
    want = scenario()
    normplug.set_backend('compiled')
    before = code.count()
    assert_same(scenario(), want, tolerance, **magnitude)
    return code.count() - before


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_precisions(dtype):
    """Half-precision input to float32 parameters, its gradients scaled as GradScaler does."""

    def scenario():
        x, dy = batch(dtype)
        layer = layer_of(dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        result = step(layer, x, dy * 2**8)
        assert result['y'].dtype == result['grad.dx'].dtype == dtype
        return result

    assert_equal_backends(scenario, TOLERANCE[dtype])


@pytest.mark.slow
def test_autocast():
    """The convolutions hand bfloat16 to the layers; compiled code is not made under autocast."""

    def scenario():
        net = network()
        with torch.autocast('cpu', torch.bfloat16):
            return step(net, *batch())

    code.forget()
    # A value that is rounded the other way in between, once in each of two layers.
    assert_equal_backends(scenario, 2 * TOLERANCE[torch.bfloat16])


@pytest.mark.slow
def test_accumulated_micro_batches():
    def scenario():
        net = network()
        step(net, *batch(seed=1))
        return step(net, *batch(seed=2))

    assert_equal_backends(scenario, FLOAT32)


@pytest.mark.slow
def test_one_layer_twice_in_a_forward():
    def scenario():
        layer = layer_of()
        x, dy = batch()
        result = step(layer, x, dy, lambda x: layer(2 * layer(x)))
        assert layer.num_batches_tracked == 2
        return result

    assert_equal_backends(scenario, FLOAT32)


@pytest.mark.slow
@pytest.mark.parametrize('use_reentrant', [True, False])
def test_first_compiled_inside_a_recomputation(use_reentrant):
    """The block's backward, and its forward without statistics, are compiled in the backward."""

    def scenario(recomputed):
        net = network()

        def forward(x):
            y = checkpoint(net[0], x, use_reentrant=use_reentrant) if recomputed else net[0](x)
            return net[1](y)

        result = step(net, *batch(), forward)
        assert net[0][1].num_batches_tracked == 1
        return result

    code.forget()
    assert assert_equal_backends(lambda: scenario(True), FLOAT32) >= 3
    normplug.set_backend('eager')
    plain = scenario(False)
    normplug.set_backend('compiled')
    assert_same(scenario(True), plain, FLOAT32)


FROZEN = {
    'no gradient of x': (False, ()),
    'weight frozen': (True, ('weight',)),
    'bias and ratios frozen': (False, ('bias', 'mean_weight', 'var_weight')),
    'x alone': (True, ('weight', 'bias', 'mean_weight', 'var_weight')),
    'nothing': (False, ('weight', 'bias', 'mean_weight', 'var_weight')),
}


@pytest.mark.slow
@pytest.mark.parametrize('part', FROZEN)
def test_partial_gradients(part):
    needs_dx, frozen = FROZEN[part]

    def scenario():
        layer = layer_of()
        for name in frozen:
            getattr(layer, name).requires_grad_(False)
        result = step(layer, *batch(requires_grad=needs_dx))
        assert ('grad.dx' in result) == needs_dx
        assert not any(f'grad.{name}' in result for name in frozen)
        return result

    assert_equal_backends(scenario, FLOAT32)


@pytest.mark.slow
@pytest.mark.parametrize('without_grad', [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize('first', ['evaluation', 'training'])
def test_evaluation_and_training_in_either_order(without_grad, first):
    """Neither what is compiled first nor under which mode decides what the other can do."""

    def scenario():
        layer, x = layer_of(), batch()[0].detach()

        def evaluate():
            with without_grad():
                return layer.eval()(x * 1), layer.train()(x * 2)

        early = evaluate() if first == 'evaluation' else ()
        result = step(layer, *batch())
        late = evaluate()
        return {**result, **{str(i): y for i, y in enumerate((*early, *late))}}

    code.forget()
    assert_equal_backends(scenario, FLOAT32)


class Packed:
    """Saved tensors go through NumPy; counts them."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        return saved_tensors_hooks(self.pack, lambda kept: torch.from_numpy(kept))

    def pack(self, tensor):
        self.count += 1
        return tensor.detach().numpy().copy()


@pytest.mark.slow
@pytest.mark.parametrize('hooks', [save_on_cpu, Packed()], ids=['save_on_cpu', 'numpy'])
def test_first_compiled_under_saved_tensor_hooks(hooks):
    def scenario():
        layer = layer_of()
        before = getattr(hooks, 'count', 0)
        with hooks():
            result = step(layer, *batch())
        saved.append(getattr(hooks, 'count', 0) - before)
        return result

    saved = []
    code.forget()
    assert_equal_backends(scenario, FLOAT32)
    assert_equal_backends(scenario, FLOAT32)
    assert saved[1] == saved[3]  # the hooks see the layer's tensors, and none of the compilation's


@pytest.mark.slow
def test_anomaly_detection():
    def scenario():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with torch.autograd.detect_anomaly():
                return step(layer_of(), *batch())

    code.forget()
    assert_equal_backends(scenario, FLOAT32)


@pytest.mark.slow
def test_evaluation_keeps_the_statistics_that_it_used():
    """Of float64, where no conversion copies them: a batch in between must not change dx."""

    def scenario():
        layer = layer_of(dtype=torch.float64)
        x, dy = batch(torch.float64)
        y = layer.eval()(x)
        layer.train()(x.detach() * 5)
        y.backward(dy)
        return {'dx': x.grad, **{name: p.grad for name, p in layer.named_parameters()}}

    assert_equal_backends(scenario, TOLERANCE[torch.float64])


@pytest.mark.slow
def test_inside_torch_compile():
    def scenario():
        net = network()
        torch.compiler.reset()
        whole = torch.compile(net, fullgraph=True, backend='aot_eager')
        forward = whole if normplug.get_backend() == 'compiled' else None
        result = step(net, *batch(), forward)
        assert net[2].num_batches_tracked == 1
        return result

    assert assert_equal_backends(scenario, FLOAT32) == 0  # the layers are part of the whole graph


@pytest.mark.slow
def test_a_compiled_layer_is_copied_pickled_and_traced():
    normplug.set_backend('compiled')
    layer = layer_of()
    step(layer, *batch())
    layer.zero_grad()
    loaded = layer_of()
    loaded.load_state_dict(layer.state_dict())
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded]
    want = step(layer, *batch(seed=2))
    for twin in twins:
        assert_same(step(twin, *batch(seed=2)), want, 0)
    traced = torch.fx.symbolic_trace(nn.Sequential(layer))
    assert [node.op for node in traced.graph.nodes] == ['placeholder', 'call_module', 'output']
    assert_same({'y': traced(batch()[0])}, {'y': layer(batch()[0])}, 0)


@pytest.mark.slow
def test_threads_at_first_use():
    normplug.set_backend('eager')
    want = [step(layer_of(), *batch(seed=seed)) for seed in range(4)]
    normplug.set_backend('compiled')
    code.forget()
    before = code.count()
    barrier, got, errors = threading.Barrier(4), {}, []

    def work(seed):
        try:
            layer, data = layer_of(), batch(seed=seed)
            barrier.wait()
            got[seed] = step(layer, *data)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for seed in range(4):
        assert_same(got[seed], want[seed], FLOAT32)
    assert code.count() - before == 2


class Lambda(BaseNorm):
    """Batch norm, by a new function at each call."""

    def rule(self, x):
        return lambda *args: standardize(args[0], *args[1:], self.eps)


@pytest.fixture
def stub(monkeypatch):
    """Compiling takes no time, and gives the step itself."""

    def graph(step, args, inputs, tuning):
        return code._Graph(lambda _: step(*args), (), lambda inputs: True, lambda results: results)

    code.forget()
    monkeypatch.setattr(code, '_counts', Counter())
    monkeypatch.setattr(code, '_compile', graph)
    yield monkeypatch
    code.forget()


def test_a_rule_that_is_another_at_each_call(stub):
    stub.setattr(code, '_MOST_GRAPHS', 5)
    layer, x = Lambda(6), batch()[0]
    normplug.set_backend('compiled')
    for _ in range(5):
        layer(x)
    with pytest.raises(code.CompilationError, match=r'compiled 5 times: a rule must be a function'):
        layer(x)
    normplug.set_backend('auto')
    with pytest.warns(UserWarning, match='compiled 5 times'):
        layer(x)


def test_a_rule_in_another_precision_is_other_code(stub):
    layer, x = SN(6), batch()[0]
    normplug.set_backend('compiled')
    for in_float64, graphs in (({'cpu'}, 1), (set(), 2), ({'cpu'}, 2)):
        stub.setattr(precision, '_IN_FLOAT64', in_float64)
        layer(x)
        assert code.count() == graphs


def test_what_cannot_be_compiled_is_tried_once(stub):
    """And other layers are compiled all the same."""
    tried = []

    def broken(*_):
        tried.append(1)
        raise OSError('cannot')

    normplug.set_backend('auto')
    layer, x = layer_of().eval(), batch()[0].detach()
    layer(x)
    assert code.count() == 1
    stub.setattr(code, '_compile', broken)
    double = x.double()
    with pytest.warns(UserWarning, match='OSError: cannot'):
        layer.double()(double)
    layer(double)
    assert len(tried) == 1


def test_what_partial_binds_must_be_hashable(stub):
    class WithList(SN):
        def rule(self, x):
            return partial(super().rule(x), unused=[1])

    normplug.set_backend('compiled')
    with pytest.raises(code.CompilationError, match=r'unhashable.*must be hashable, such as a'):
        WithList(6)(batch()[0])


def test_another_number_of_threads_is_another_code(stub):
    """As in a forked worker, where a team of threads would never answer."""
    normplug.set_backend('compiled')
    layer, x = SN(8).eval(), torch.randn(2, 8, 64, 64)
    threads = torch.get_num_threads()
    try:
        for number, graphs in ((2, 1), (1, 2), (2, 2)):
            torch.set_num_threads(number)
            layer(x)
            assert code.count() == graphs
    finally:
        torch.set_num_threads(threads)


def test_an_error_of_compiled_code_is_raised(stub):
    """``auto`` falls back where nothing compiles, not where what was compiled fails."""

    def fails(*_):
        raise MemoryError('at run time')

    stub.setattr(code, '_compile', lambda *_: code._Graph(fails, (), lambda inputs: True, tuple))
    normplug.set_backend('auto')
    with pytest.raises(MemoryError, match='at run time'):
        layer_of()(batch()[0])


def test_one_warning_where_nothing_compiles(stub):
    """For a whole training step of a network, and right results."""

    def broken(*_):
        raise OSError('no compiler')

    stub.setattr(code, '_compile', broken)
    normplug.set_backend('eager')
    want = step(network(), *batch())
    normplug.set_backend('auto')
    with pytest.warns(UserWarning, match='run uncompiled') as caught:
        got = step(network(), *batch())
    assert len([w for w in caught if 'run uncompiled' in str(w.message)]) == 1
    assert_same(got, want, 0)
