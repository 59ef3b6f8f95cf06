"""Gradients of γ and β by instance, of every norm of variances."""

import copy
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from normplug.norms import BCN, GW, IBN, KN, SN, SW, GhostBN, IterNorm
from tests.cases import CASES, SHAPES, TOLERANCE, assert_same, built, random_input, run

WHITENING = ('sw', 'sync_sw', 'iternorm', 'sync_iternorm', 'gw')
OF_VARIANCES = [case for case in CASES if not case.name.startswith(WHITENING)]
of_variances = pytest.mark.parametrize('case', OF_VARIANCES, ids=lambda case: case.name)


def watched(layer):
    seen = []
    layer.register_sample_grad_hook(lambda *grads: seen.append(grads))
    return seen


def upstream(x, seed=5):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


def by_image(layer, y, dy):
    """y = γ x̂ + β whatever x̂ is: Σ dy x̂ and Σ dy, (N, C) each."""
    spatial = (-1,) + (1,) * (y.dim() - 2)
    unit = (y - layer.bias.view(spatial)) / layer.weight.view(spatial)
    return tuple((t.flatten(2) if t.dim() > 2 else t[..., None]).sum(2) for t in (dy * unit, dy))


@of_variances
@pytest.mark.parametrize('shape', [SHAPES[0], SHAPES[2], SHAPES[3]], ids=str)
def test_gradients_by_instance_and_nothing_else_changes(case, shape):
    layer, plain = (built(case, shape[1], torch.float64) for _ in range(2))
    x = random_input(shape, torch.float64)
    dy, seen = upstream(x), watched(layer)
    got = run(layer, x, dy)
    assert_same(got, run(plain, x, dy), TOLERANCE[torch.float64])
    (grads,) = seen
    wants = by_image(layer, got['y'], dy)
    if isinstance(layer, BCN):  # y is no such map of its γ and β: the sums alone
        grads, wants = (g.sum(0) for g in grads), (got['grad.weight'], got['grad.bias'])
    for grad, want in zip(grads, wants, strict=True):
        torch.testing.assert_close(grad, want.detach(), rtol=1e-9, atol=1e-9)


@of_variances
def test_float32_gradients_are_the_same_bits(case):
    """Sums over instances are taken in the dtype of the rule, as without hooks."""
    layer, plain = (built(case, 5) for _ in range(2))
    seen, x = watched(layer), random_input((3, 5, 4, 3))
    dy = upstream(x)
    one, other = run(layer, x, dy), run(plain, x, dy)
    for name in ('y', 'dx', 'grad.weight', 'grad.bias'):
        assert torch.equal(one[name], other[name]), name
    assert seen[0][0].dtype == torch.float64


@pytest.mark.slow
@pytest.mark.parametrize('build', [IBN])
def test_compiled(compiled, build):
    layer, plain, x = build(4), build(4), random_input((3, 4, 5, 6))
    dy, seen = upstream(x), watched(layer)
    assert_same(run(layer, x, dy), run(plain, x, dy), TOLERANCE[torch.float32])
    want = by_image(layer, layer(x).detach(), dy)
    torch.testing.assert_close(seen[0][0].float(), want[0].detach(), rtol=1e-4, atol=1e-4)


def test_groups_of_a_batch():
    layer, plain = (GhostBN(3, virtual_batch_size=2).double() for _ in range(2))
    x = random_input((6, 3, 4, 4), torch.float64)
    dy, seen = upstream(x), watched(layer)
    got = run(layer, x, dy)
    assert_same(got, run(plain, x, dy), TOLERANCE[torch.float64])
    torch.testing.assert_close(seen[0][0], by_image(layer, got['y'], dy)[0].detach())


def test_under_autocast():
    layer, plain, x = SN(4), SN(4), random_input((3, 4, 5, 5))
    dy, seen = upstream(x), watched(layer)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        one, other = (
            run(layer, x.bfloat16(), dy.bfloat16()),
            run(plain, x.bfloat16(), dy.bfloat16()),
        )
    assert_same(one, other, 1e-6)
    assert len(seen) == 1


@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointing_shows_each_instance_once(reentrant):
    layer, x = SN(4).double(), random_input((3, 4, 5, 5), torch.float64).requires_grad_()
    dy, seen = upstream(x), watched(layer)
    y = checkpoint(layer, x, use_reentrant=reentrant)
    y.backward(dy)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0][0].sum(0), layer.weight.grad)


def test_second_derivatives():
    layer, plain = (GhostBN(3).double() for _ in range(2))
    x = random_input((4, 3, 2, 2), torch.float64).requires_grad_()
    dy, seen, found = upstream(x), watched(layer), []
    for one in (layer, plain):
        first = torch.autograd.grad((one(x) * dy).sum(), (x, one.weight), create_graph=True)
        penalty = sum(grad.square().sum() for grad in first)
        found.append(torch.autograd.grad(penalty, (x, one.weight)))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)
    assert seen
    assert not any(grad.requires_grad for grads in seen for grad in grads)


def test_one_of_both_frozen():
    layer, x = GhostBN(3), random_input((4, 3, 2, 2))
    layer.bias.requires_grad_(False)
    seen = watched(layer)
    layer(x).backward(upstream(x))
    torch.testing.assert_close(seen[0][1].float(), upstream(x).sum((2, 3)))
    assert layer.bias.grad is None


def test_not_where_there_is_nothing_to_see():
    layer, x = SN(3), random_input((4, 3, 2, 2))
    seen = watched(layer)
    with torch.no_grad():
        layer(x)
    layer(x[:0]).sum().backward()
    assert layer.weight.grad.abs().max() == 0
    assert seen == []


def test_a_handle_ends_it_and_two_hooks_see_the_same():
    layer, x = SN(3), random_input((4, 3, 2, 2))
    first, second = watched(layer), []
    handle = layer.register_sample_grad_hook(lambda *args: second.append(args))
    layer(x).sum().backward()
    handle.remove()
    layer(x).sum().backward()
    assert (len(first), len(second)) == (2, 1)
    assert torch.equal(first[0][0], second[0][0])


@pytest.mark.parametrize('build', [SN, KN])
def test_copies_have_no_hooks(build):
    layer = build(3)
    layer.register_sample_grad_hook(lambda *args: 1 / 0)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not twin.sample_grad_hooks
    assert layer.sample_grad_hooks
    scripted = torch.jit.script(copy.deepcopy(layer).eval())
    x = random_input((2, 3, 4, 4))
    torch.testing.assert_close(scripted(x), layer.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('build', [GW, SW, IterNorm])
def test_whitening_refuses(build):
    with pytest.raises(ValueError, match=f"'{build.__name__}'.*no gradients of its weight by ima"):
        build(4).register_sample_grad_hook(print)
