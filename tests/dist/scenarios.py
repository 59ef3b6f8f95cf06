"""What the ranks do. Each function runs on every rank and asserts there.

The truth is one process with the whole batch: the same layer, not synchronized.
"""

import copy
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from mmengine.dist import all_reduce_params
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from normplug import PN, BaseNorm
from normplug.dist import group_reducer
from normplug.ops.plan import Plan
from normplug.ops.reduced import merge_step
from normplug.stats import Moments, pack
from tests.cases import CASES, TOLERANCE, assert_same, built, random_input, run

EXACT = TOLERANCE[torch.float64]
GATHER, REDUCE = '_allgather_base_', 'allreduce_'


class Collectives(TorchDispatchMode):
    """Records the name of every collective, whatever function started it."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ('c10d', '_c10d_functional'):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def collectives(*expected):
    """Exactly these collectives, in this order."""
    with Collectives() as seen:
        yield
    assert tuple(seen.names) == expected, seen.names


def layer_of(name):
    (case,) = [case for case in CASES if case.name == name]
    return built(case, 5, torch.float64)


def local(module):
    """A copy that keeps its statistics to itself."""
    twin = copy.deepcopy(module)
    for layer in twin.modules():
        if isinstance(layer, BaseNorm):
            layer.synchronized = False
    return twin


def own_part(whole, split):
    """This rank's share of the samples, ``split[rank]`` of them."""
    return whole.split(split)[dist.get_rank()]


def summed(tensor):
    """The sum over ranks."""
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def assert_equal_on_all_ranks(tensors):
    for tensor in tensors:
        first = tensor.detach().clone()
        dist.broadcast(first, 0)
        assert torch.equal(first, tensor)


def assert_matches(ours, whole, split):
    """The results of :func:`run` on a part against those on the whole batch."""
    expected = {name: own_part(t, split) if name in ('y', 'dx') else t for name, t in whole.items()}
    total = {name: summed(t) if name.startswith('grad.') else t for name, t in ours.items()}
    # Those of logits are differences of sums as large as β's.
    of_one_layer = ('grad.sw_', 'grad.mean_weight', 'grad.var_weight')
    logits = [name for name in total if name.startswith(of_one_layer)]
    terms = total['grad.bias'].abs().max().item() if logits else 0
    assert_same(total, expected, EXACT, **dict.fromkeys(logits, terms))


def whole_batch(name, split, shape=(4, 3)):
    """Two steps, so that the second one's running statistics stand on the first's."""
    layer = layer_of(name)
    one_process = local(layer)
    for seed in (1, 3):
        x = random_input((sum(split), 5, *shape), torch.float64, seed)
        dy = random_input(x.shape, torch.float64, seed + 1)
        with collectives(GATHER, REDUCE):
            ours = run(layer, own_part(x, split), own_part(dy, split))
        assert_matches(ours, run(one_process, x, dy), split)
    assert layer.num_batches_tracked == 2
    assert_equal_on_all_ranks(layer.buffers())


def evaluation(name):
    """Running statistics need nobody."""
    layer = layer_of(name).eval()
    if dist.get_rank() == 0:
        with collectives():
            layer(random_input((2, 5, 4, 3), torch.float64))


def maps_of_different_size(name, shapes):
    """Batch statistics over all pixels, though neither N nor H·W agree; by autograd."""
    layer = layer_of(name)
    start = layer.batch_from
    xs = [
        random_input((shape[0], 5, *shape[1:]), torch.float64, seed).requires_grad_()
        for seed, shape in enumerate(shapes)
    ]
    dys = [random_input(x.shape, torch.float64, seed=10 + i) for i, x in enumerate(xs)]
    pixels = torch.cat([x[:, start:].transpose(0, 1).flatten(1) for x in xs], 1)
    batch = Moments(pixels.mean(1), pixels.var(1, correction=0))
    twin = local(layer)
    ys = []
    for x in xs:
        mean = x.mean((2, 3), keepdim=True)
        var = x.var((2, 3), correction=0)
        params = *twin.rule_params(), *(twin.drawn(x) if isinstance(twin, PN) else ())
        affine = twin.rule(x)(Moments(mean[..., 0, 0], var), batch, *params)
        scale, offset = (t.expand(x.shape[:2])[..., None, None] for t in affine)
        ys.append((x - mean) * scale + offset)
    torch.autograd.backward(ys, dys)

    rank = dist.get_rank()
    ours = run(layer, xs[rank], dys[rank])
    ours = {name: summed(t) if name.startswith('grad.') else t for name, t in ours.items()}
    expected = dict(twin.named_buffers())
    expected |= {f'grad.{name}': p.grad for name, p in twin.named_parameters()}
    expected |= {'y': ys[rank].detach(), 'dx': xs[rank].grad}
    count = pixels.shape[1]
    step, spread = layer.momentum, batch.var * count / (count - 1)
    if layer.tracking(xs[0]).pooled:  # PN: also between the batch and the average
        spread = batch.var + (1 - step) * (batch.mean - twin.running_mean).square()
    expected['running_mean'] = (1 - step) * twin.running_mean + step * batch.mean.detach()
    expected['running_var'] = (1 - step) * twin.running_var + step * spread.detach()
    expected['num_batches_tracked'] = torch.tensor(1)
    assert_same(ours, expected, EXACT)


def input_gradient_on_one_rank_only(name):
    """As where a rank without RoIs makes its empty input itself, attached to nothing."""
    layer = layer_of(name)
    one_process = local(layer)
    x = random_input((3, 5, 4, 3), torch.float64)
    dy = random_input(x.shape, torch.float64, seed=2)
    whole = run(one_process, x, dy)
    split = (3,) + (0,) * (dist.get_world_size() - 1)
    mine = own_part(x, split).clone()
    if dist.get_rank() == 0:
        mine.requires_grad_()
    with collectives(GATHER, REDUCE):
        layer(mine).backward(own_part(dy, split))
    if dist.get_rank() == 0:
        assert_same({'dx': mine.grad}, {'dx': whole['dx']}, EXACT)
    else:
        assert mine.grad is None


def merged(moments, count):
    """Mean, variance and count of all ranks."""
    ranks = group_reducer().gather(pack(moments, count))
    return merge_step(ranks, Plan(None), None)[:3]


def all_ranks_empty(name):
    layer = layer_of(name)
    before = copy.deepcopy(layer.state_dict())
    empty = torch.zeros(0, 5, 4, 3, dtype=torch.float64)
    with collectives(GATHER, REDUCE):
        result = run(layer, empty, empty)
    assert result['y'].shape == result['dx'].shape == empty.shape
    for parameter in layer.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key]), key
    mean, var, total = merged(Moments(*torch.zeros(2, 5)), 0)
    assert total == 0
    assert torch.equal(torch.stack((mean, var)), torch.zeros(2, 5))


def non_finite_on_one_rank(name):
    """All ranks see it, and none records it; PN's other ranks do not: theirs is the population."""
    layer = layer_of(name)
    before = copy.deepcopy(layer.state_dict())
    x = random_input((2, 5, 4, 3), torch.float64)
    if dist.get_rank() == 0:
        x[0, -1, 2, 2] = float('nan')
    y = layer(x)[:, -1]
    if layer.tracking(x).pooled:
        assert torch.isnan(y).any() == (dist.get_rank() == 0)
    else:
        assert torch.isnan(y).all()
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key]), key


def recomputed(name, use_reentrant):
    """Activation checkpointing: communicates again, records once."""
    layer = layer_of(name)
    one_process = local(layer)
    split = (2, 1)
    x = random_input((3, 5, 4, 3), torch.float64)
    dy = random_input(x.shape, torch.float64, seed=2)
    mine = own_part(x, split).clone().requires_grad_()
    y = checkpoint(layer, mine, use_reentrant=use_reentrant)
    y.backward(own_part(dy, split))
    ours = {
        'y': y.detach(),
        'dx': mine.grad,
        **{f'grad.{key}': p.grad for key, p in layer.named_parameters()},
        **dict(layer.named_buffers()),
    }
    assert_matches(ours, run(one_process, x, dy), split)


def compiled(name):
    """One graph, collectives included."""
    layer = layer_of(name)
    one_process = local(layer)
    split = (2, 3)
    x = random_input((5, 5, 4, 3), torch.float64)
    dy = random_input(x.shape, torch.float64, seed=2)
    traced = torch.compile(layer, fullgraph=True, backend='aot_eager')
    ours = run(traced, own_part(x, split), own_part(dy, split))
    ours = {key.replace('_orig_mod.', ''): t for key, t in ours.items()}
    assert_matches(ours, run(one_process, x, dy), split)


def counts_beyond_float32():
    """2²⁴ + 1 values on each rank: none of them is lost."""
    rank, size = dist.get_rank(), dist.get_world_size()
    count = 2**24 + 1
    means = torch.full((3,), 1e4 + rank).double()
    mean, var, total = merged(Moments(means, torch.full_like(means, 0.5)), count)
    assert total.item() == size * count
    means = torch.arange(size, dtype=torch.float64) + 1e4
    torch.testing.assert_close(mean, means.mean().expand(3), rtol=1e-15, atol=0)
    want = (0.5 + means.var(correction=0)).expand(3)
    torch.testing.assert_close(var, want, rtol=1e-14, atol=0)


def groups(name):
    """Three ranks: two of them synchronize, the third is on its own."""
    rank = dist.get_rank()
    members = [[0, 1], [2]]
    made = [dist.new_group(ranks) for ranks in members]
    layer = layer_of(name)
    layer.process_group = made[rank // 2]
    one_process = local(layer)
    whole = random_input((4, 5, 4, 3), torch.float64)[: 3 if rank < 2 else 4]
    dy = random_input(whole.shape, torch.float64, seed=2)
    mine = (slice(0, 2), slice(2, 3), slice(None))[rank]
    with collectives(*((GATHER, REDUCE) if rank < 2 else ())):
        ours = run(layer, whole[mine], dy[mine])
    want = run(one_process, whole, dy)
    for key in ('y', 'dx'):
        want[key] = want[key][mine]
    for key in list(want):
        if key.startswith('grad.') and rank < 2:
            dist.all_reduce(ours[key], group=made[0])
    assert_same(ours, want, EXACT)

    layer.process_group = made[1 - rank // 2]
    with pytest.raises(
        ValueError, match='process_group is a group that this rank is not a member of'
    ):
        layer(whole)


def averaged_buffers(name):
    """mmengine's SyncBuffersHook takes the mean of each buffer, of integers too."""
    layer = layer_of(name).float()
    for seed in range(3):
        layer(random_input((2, 5, 4, 3), seed=10 * seed + dist.get_rank()))
    before = copy.deepcopy(dict(layer.named_buffers()))
    all_reduce_params(layer.buffers(), op='mean')
    assert_equal_on_all_ranks(layer.buffers())
    assert_same(dict(layer.named_buffers()), before, 1e-6)
    assert layer.num_batches_tracked == 3


def gradient_penalty(name, split):
    """A gradient that is differentiated again, of the loss of all ranks."""
    whole = random_input((3, 5, 4, 3), torch.float64)
    layer = layer_of(name)
    twin = local(layer)
    names = [name for name, _ in layer.named_parameters()]

    def penalty(layer, x):
        (dx,) = torch.autograd.grad(layer(x).sigmoid().sum(), x, create_graph=True)
        dx.sin().sum().backward()
        return x.grad, [p.grad for p in layer.parameters()]

    dx, to_params = penalty(layer, own_part(whole, split).clone().requires_grad_())
    want_dx, want = penalty(twin, whole.clone().requires_grad_())
    torch.testing.assert_close(dx, own_part(want_dx, split), rtol=1e-9, atol=1e-9)
    for name, own, expected in zip(names, to_params, want, strict=True):
        if expected is None:
            assert own is None, name
        else:
            torch.testing.assert_close(summed(own), expected, rtol=1e-9, atol=1e-9, msg=name)
