"""What holds for every normalizer: run over the one list of cases."""

import pytest
import torch
from torch import nn

from normplug.norms import MABN, SN, EstBCN, IterNorm
from tests.cases import (
    TOLERANCE,
    Case,
    all_cases,
    all_shapes,
    assert_same,
    built,
    case_of_each_type,
    random_input,
    run,
)


def copy_of(case, layer):
    twin = case.build(layer.num_features).to(next(iter(layer.state_dict().values())).dtype)
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@all_cases
@all_shapes
def test_float32_agrees_with_float64(case, shape, training):
    exact = built(case, shape[1], torch.float64).train(training)
    single = copy_of(case, exact).float()
    single.train(training)
    x, dy = random_input(shape).double(), random_input(shape, seed=2).double()
    want = run(exact, x, dy)
    got = run(single, x.float(), dy.float())
    # Of a single pixel the instance variance is 0 and 1/sqrt(eps) multiplies dy and its mean.
    one_pixel = x[0, 0].numel() == 1
    assert_same(got, want, TOLERANCE[torch.float32], dx=exact.eps**-0.5 if one_pixel else 1)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@all_cases
def test_half_input_rounds_only_at_the_output(case, dtype):
    """float32 parameters and statistics, half input and output, as under autocast."""
    layer = built(case, 6)
    x = random_input((3, 6, 9, 7)).to(dtype)
    dy = random_input((3, 6, 9, 7), seed=2).to(dtype)
    want = run(copy_of(case, layer), x.float(), dy.float())
    got = run(layer, x, dy)
    assert got['y'].dtype == got['dx'].dtype == dtype
    for name in ('y', 'dx'):
        want[name] = want[name].to(dtype)
    assert_same(got, want, TOLERANCE[dtype])


@all_cases
def test_channels_last_is_kept_and_changes_nothing(case):
    layer = built(case, 6)
    x, dy = random_input((2, 6, 5, 7)), random_input((2, 6, 5, 7), seed=2)
    want = run(copy_of(case, layer), x, dy)
    last = torch.channels_last
    got = run(layer, x.to(memory_format=last), dy.to(memory_format=last))
    assert_same(got, want, TOLERANCE[torch.float32])
    assert got['y'].is_contiguous(memory_format=last)
    assert got['dx'].is_contiguous(memory_format=last)


@all_cases
def test_non_contiguous_input_and_gradient(case):
    layer = built(case, 3)
    x, dy = random_input((2, 3, 8, 10)), random_input((2, 3, 8, 10), seed=2)
    cut = (..., slice(1, None, 2))
    want = run(copy_of(case, layer), x[cut].contiguous(), dy[cut].contiguous())
    got = run(layer, x[cut], dy.transpose(2, 3).contiguous().transpose(2, 3)[cut])
    assert_same(got, want, TOLERANCE[torch.float32])


@all_cases
def test_large_mean_in_float32(case):
    """|mean|/std of 1e4: output and every gradient as exact as at a mean of 0.

    Native batch norm errs by 1e-4 here; the differences of means that SN's logits learn from
    would keep one digit in float32.
    """
    exact = built(case, 8, torch.float64)
    single = copy_of(case, exact).float()
    shape = (2, 8, 64, 64)
    x = (random_input(shape, torch.float64) + 1e4).float()
    dy = random_input(shape, seed=2)
    assert_same(run(single, x, dy), run(exact, x.double(), dy.double()), TOLERANCE[torch.float32])


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@all_cases
def test_empty_batch(case, training):
    """RoI heads feed N = 0: zero gradients for every parameter, no NaN, no update."""
    layer = built(case, 4).train(training)
    before = {name: b.clone() for name, b in layer.named_buffers()}
    result = run(layer, torch.zeros(0, 4, 7, 7), torch.zeros(0, 4, 7, 7))
    assert result['y'].shape == (0, 4, 7, 7)
    for name, value in result.items():
        if name.startswith('grad.'):
            assert torch.equal(value, torch.zeros_like(value)), name
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name]), name


@all_cases
def test_one_value_per_channel(case):
    """One image of one pixel: finite, and no statistics are made of a single value.

    PN's are: its variance is also that between batches (tests/norms/test_pn.py).
    """
    layer = built(case, 4)
    x = random_input((1, 4, 1, 1))
    pooled = layer.batch_from is not None and layer.tracking(x).pooled
    before = {name: b.clone() for name, b in layer.named_buffers()}
    result = run(layer, x, random_input((1, 4, 1, 1), seed=2))
    assert all(torch.isfinite(value).all() for value in result.values())
    for name, buffer in layer.named_buffers():
        assert pooled or torch.equal(buffer, before[name]), name
        assert torch.isfinite(buffer).all(), name


@pytest.mark.parametrize('poison', [float('nan'), float('inf')])
@all_cases
def test_non_finite_input_shows_and_spares_the_running_statistics(case, poison):
    layer = built(case, 4)
    before = {name: b.clone() for name, b in layer.named_buffers()}
    x = random_input((2, 4, 3, 3))
    x[0, -1, 2, 2] = poison
    assert not torch.isfinite(layer(x)).all()
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name]), name


@all_cases
def test_used_twice_before_one_backward(case):
    """A head shared over levels: gradients add up, and no buffer change invalidates the graph."""
    layer = built(case, 4, torch.float64)
    twin = copy_of(case, layer)
    first, second = random_input((2, 4, 3, 3)).double(), random_input((1, 4, 5, 5)).double()
    (layer(first).square().sum() + layer(second).square().sum()).backward()
    for x in (first, second):
        twin(x).square().sum().backward()
    for ours, separate in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, separate.grad)


@all_cases
def test_running_statistics_follow_batch_norm(case):
    layer = case.build(4)
    if layer.batch_from is None:
        assert not hasattr(layer, 'running_mean')
        return
    batches = [random_input((2, 4, 3, 5), seed=seed) for seed in range(3)]
    if isinstance(layer, (EstBCN, MABN)):  # by the formulas of others: in tests of their own
        return
    how = layer.tracking(batches[0])
    native = nn.BatchNorm2d(4, momentum=layer.momentum)
    for x in batches:
        layer(x)
        native(x)
    if how.pooled:  # PN: the mixture of a start of mean 0 and variance 1 with all values
        rest = 1 - layer.momentum
        weights = [1 / 3] * 3 if how.warmup else [layer.momentum * rest**k for k in (2, 1, 0)]
        values = torch.stack([x.transpose(0, 1).flatten(1) for x in batches])
        mean, square = (
            sum(w * t.mean(1) for w, t in zip(weights, v, strict=True))
            for v in (values, values.square())
        )
        square = square + (0 if how.warmup else rest**3)
        native.running_mean, native.running_var = mean, square - mean.square()
    own = slice(layer.batch_from, None)
    torch.testing.assert_close(layer.running_mean, native.running_mean[own])
    if hasattr(layer, 'running_var') and not getattr(layer, 'released_statistics', False):
        torch.testing.assert_close(layer.running_var, native.running_var[own])
    assert layer.num_batches_tracked == native.num_batches_tracked == 3


@all_cases
def test_momentum_none_is_the_plain_average(case):
    layer = case.build(4)
    if layer.batch_from is None or isinstance(layer, MABN):
        return
    layer.momentum = None
    batches = [random_input((2, 4, 3, 5), seed=seed) for seed in range(4)]
    for x in batches:
        layer(x)
    mean = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(layer.running_mean, mean[layer.batch_from :])


@case_of_each_type
def test_compiles_as_one_graph(case):
    # What travels from KN to KN is no argument of the layer, and what MABN's backward finds is no
    # result: the compiler goes around them.
    check_compiled(case, fullgraph=case.name not in ('kn', 'sync_kn', 'mabn'))


@pytest.mark.parametrize(
    'case', [Case('sn', SN), Case('iternorm', IterNorm)], ids=lambda case: case.name
)
def test_compiles_for_any_size(case):
    check_compiled(case, fullgraph=True, dynamic=True)


def check_compiled(case, **options):
    layer = built(case, 4)
    twin = copy_of(case, layer)
    torch.compiler.reset()  # every case counts as a recompilation of the one forward; 8 may
    compiled = torch.compile(layer, backend='aot_eager', **options)
    x, dy = random_input((2, 4, 5, 3)), random_input((2, 4, 5, 3), seed=2)
    want = run(twin, x, dy)
    got = run(compiled, x, dy)
    got = {name.replace('_orig_mod.', ''): tensor for name, tensor in got.items()}
    assert_same(got, want, TOLERANCE[torch.float32])


@all_cases
def test_wrong_inputs_say_what_is_wrong(case):
    layer = case.build(4)
    name = type(layer).__name__
    with pytest.raises(ValueError, match=rf'{name} was built for 4 channels .* input of 5'):
        layer(torch.zeros(2, 5, 3, 3))
    with pytest.raises(ValueError, match=r'input of 1 axes: \(4,\)'):
        layer(torch.zeros(4))
    with pytest.raises(ValueError, match='input of 6 axes'):
        layer(torch.zeros(1, 4, 1, 1, 1, 1))
    with pytest.raises(ValueError, match=r'floating-point input, got torch\.int64'):
        layer(torch.zeros(2, 4, 3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match='without pixels'):
        layer(torch.zeros(2, 4, 0, 3))


@pytest.mark.parametrize('features', [0, -3, 2.5])
@all_cases
def test_wrong_num_features(case, features):
    with pytest.raises(ValueError, match='num_features must be a positive integer'):
        case.build(features)
