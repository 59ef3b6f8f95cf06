"""Memory for results, and the layers that write to it."""

import sys
from pathlib import Path

import pytest
import torch

import normplug
from normplug import IBN, SN
from normplug.ops.memory import result_like
from tests.cases import TOLERANCE, Case, assert_same, built, random_input, run

HUGE_PAGES = Path('/sys/kernel/mm/transparent_hugepage/enabled')
LAST = torch.channels_last

INPUTS = {
    'maps': lambda: random_input((2, 3, 73, 79)),
    'several threads': lambda: random_input((2, 4, 64, 64)),
    'one thread': lambda: random_input((1, 1, 151, 217)),
    'one pixel': lambda: random_input((3, 4, 1, 1)),
    'no image': lambda: random_input((0, 4, 3, 3)),
    'vectors': lambda: random_input((129, 257)),
    'sequences': lambda: random_input((3, 5, 2311)),
    'volumes': lambda: random_input((2, 3, 13, 19, 23)),
    'one image': lambda: random_input((1, 3, 111, 113)),
    'huge pages': lambda: random_input((1, 3, 1901, 1511)),
    'channels_last': lambda: random_input((2, 6, 73, 79)).to(memory_format=LAST),
    'cropped': lambda: random_input((2, 4, 90, 80))[:, 1:, 5:80, 3:],
    'float64': lambda: random_input((2, 3, 73, 79), torch.float64),
    'bfloat16': lambda: random_input((2, 3, 73, 79), torch.bfloat16),
}


@pytest.mark.parametrize('name', INPUTS)
def test_shape_dtype_and_layout_of_a_result(name):
    x = INPUTS[name]()
    result = result_like(x)
    dense = torch.empty_like(x).stride()  # a crop has gaps, its result has not
    assert (result.shape, result.dtype, result.stride()) == (x.shape, x.dtype, dense)
    assert result.numel() == 0 or result.data_ptr() != x.data_ptr()
    assert not result.requires_grad
    assert result.isnan().all()  # poisoned: nothing was written yet


def test_left_to_others():
    from torch._subclasses.fake_tensor import FakeTensorMode

    class Own(torch.Tensor):
        pass

    assert result_like(torch.empty(9)) is not None
    assert result_like(torch.empty(9).as_subclass(Own)) is None
    with FakeTensorMode():
        assert result_like(torch.empty(9)) is None
    x = torch.empty(9)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert result_like(x) is None


@pytest.mark.skipif(
    sys.platform != 'linux' or not HUGE_PAGES.exists() or '[never]' in HUGE_PAGES.read_text(),
    reason='the system has no huge pages to ask for',
)
def test_huge_pages_are_asked_for():
    result = result_like(torch.empty(9 * 2**20))
    inside = result.data_ptr() + result.nbytes // 2
    flags = None
    for line in Path('/proc/self/smaps').read_text().splitlines():
        first, *rest = line.split()
        if '-' in first:
            start, stop = (int(address, 16) for address in first.split('-'))
        elif first == 'VmFlags:' and start <= inside < stop:
            flags = rest
    assert 'hg' in flags


@pytest.mark.parametrize('kind', [SN, IBN])
@pytest.mark.parametrize('name', INPUTS)
def test_a_layer_writes_what_it_should(name, kind):
    check_layer(name, kind)


# Other inputs: test_compiled_inputs.
@pytest.mark.slow
@pytest.mark.parametrize('name', ['several threads', 'huge pages', 'volumes', 'channels_last'])
def test_compiled_code_writes_what_it_should(compiled, name):
    check_layer(name, SN)


def check_layer(name, kind):
    """In training and evaluation, against the same layer in float64 on x laid out in a row."""
    x = INPUTS[name]()
    tolerance = 4 * TOLERANCE[x.dtype]  # which is for sums of a thousand; these are of 36 thousand
    dy = random_input(tuple(x.shape), x.dtype, seed=2)
    layer, leaf = built(Case('', kind), x.shape[1]).to(x.dtype), x.detach().requires_grad_()
    y = layer(leaf)
    # x.grad would have the leaf's layout, whatever the layer's gradient has.
    dx, *grads = torch.autograd.grad(y, (leaf, *layer.parameters()), dy)
    named = {
        f'grad.{name}': g for (name, _), g in zip(layer.named_parameters(), grads, strict=True)
    }
    ours = {'y': y.detach(), 'dx': dx, **named, **dict(layer.named_buffers())}
    y_eval = built(Case('', kind), x.shape[1]).to(x.dtype).eval()(x)
    normplug.set_backend('eager')
    twin = built(Case('', kind), x.shape[1]).to(x.dtype).double()
    want = run(twin, x.double().contiguous(), dy.double())
    assert_same(ours, want, tolerance)
    assert y.stride() == dx.stride() == torch.empty_like(x).stride()
    twin = built(Case('', kind), x.shape[1]).to(x.dtype).double().eval()
    assert_same({'y': y_eval}, {'y': twin(x.double().contiguous())}, tolerance)


@pytest.mark.parametrize('backend', ['eager', pytest.param('compiled', marks=pytest.mark.slow)])
def test_each_result_has_memory_of_its_own(backend):
    normplug.set_backend(backend)
    layer, x = SN(4), random_input((2, 4, 64, 80)).requires_grad_()
    y, dy = layer(x), random_input((2, 4, 64, 80), seed=2)
    first = torch.autograd.grad(y, x, dy, retain_graph=True)[0]
    kept = y.detach().clone(), first.clone()
    layer.eval()(x.detach() + 1)
    second = torch.autograd.grad(y, x, 2 * dy)[0]
    assert torch.equal(y, kept[0])
    assert torch.equal(first, kept[1])
    torch.testing.assert_close(second, 2 * first)
