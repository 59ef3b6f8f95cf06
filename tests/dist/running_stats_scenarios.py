"""What the ranks do with running statistics of their own; see ``scenarios.py``."""

import copy
from types import SimpleNamespace

import torch
import torch.distributed as dist
from mmengine.hooks import EMAHook, SyncBuffersHook
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import get_priority
from torch import nn

from normplug import CBN, IBN, MABN, PN, SN, SyncPN, SyncSN, link_kalman
from normplug.dist import synchronize_running_stats
from normplug.hooks import SyncNormStatsHook
from normplug.norms import GW, SW, IterNorm
from normplug.population import estimate_population
from tests.cases import CASES, assert_same, built, random_input
from tests.dist.scenarios import EXACT, GATHER, assert_equal_on_all_ranks, collectives


def model_of(rank, dtype=torch.float64):
    """Layers with and without statistics, whose values depend on the rank."""
    model = nn.Sequential(
        nn.Conv2d(3, 5, 1),
        SN(5),
        nn.BatchNorm2d(5),
        SN(5, using_bn=False),
        nn.BatchNorm2d(5, track_running_stats=False),
        nn.Sequential(IBN(5), IBN(5, ratio=1), SyncSN(5, frozen=True)),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.Sequential(SW(4, num_pergroup=2), IterNorm(4, num_channels=2), GW(4)),
    ).to(dtype)
    generator = torch.Generator().manual_seed(100 + rank)
    for name, buffer in model.named_buffers():
        if 'running' in name:
            buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + rank)
        elif 'tracked' in name:
            buffer.fill_(7 * (rank + 1) % 10)
    return model


def between_means(kind, means):
    """What the spread of the ranks' means (R, C) adds, by the definition of its kind."""
    if kind == 'wm':
        return 0
    if kind == 'var':
        return means.var(0, correction=0)
    blocks = means.T.unflatten(0, (-1, 2))  # (g, d, R)
    return torch.stack([torch.cov(block, correction=0) for block in blocks])


def merged():
    """The formulas, from what every rank knows of the others."""
    size, rank = dist.get_world_size(), dist.get_rank()
    ranks = [dict(model_of(r).named_buffers()) for r in range(size)]
    expected = dict(ranks[rank])
    for name in expected:
        stacked = torch.stack([buffers[name] for buffers in ranks])
        if name.endswith('num_batches_tracked'):
            expected[name] = stacked.amax(0)
        elif name.endswith('running_mean'):
            expected[name] = stacked.mean(0)
            for kind in ('var', 'cov', 'wm'):
                spread = name.replace('mean', kind)
                if spread in expected:
                    within = torch.stack([buffers[spread] for buffers in ranks]).mean(0)
                    expected[spread] = within + between_means(kind, stacked)
    model = model_of(rank)
    parameters = copy.deepcopy(dict(model.named_parameters()))
    with collectives(GATHER):
        synchronize_running_stats(model)
    assert_same(dict(model.named_buffers()), expected, EXACT)
    assert_same(dict(model.named_parameters()), parameters, 0)
    assert_equal_on_all_ranks(model.buffers())
    assert_equal_on_all_ranks(model[5][2].parameters())

    once = copy.deepcopy(dict(model.named_buffers()))
    synchronize_running_stats(model)
    assert_same(dict(model.named_buffers()), once, 0)


def narrow_types():
    """Statistics of any type, and of several in one model, agree to the last bit."""
    model = model_of(dist.get_rank(), torch.float32)
    model[1].bfloat16()
    counts = model[2].num_batches_tracked
    counts.fill_(2**40 + dist.get_rank())
    with collectives(GATHER):
        synchronize_running_stats(model)
    assert_equal_on_all_ranks(model.buffers())
    assert model[1].running_mean.dtype == torch.bfloat16
    assert counts == 2**40 + dist.get_world_size() - 1


def without_statistics():
    """Nothing to say, nothing sent."""
    with collectives():
        synchronize_running_stats(nn.Sequential(nn.Conv2d(3, 5, 1), nn.GroupNorm(1, 5)))


def hooks_together():
    """The merged values of both, in the order in which mmengine would call them."""
    model = model_of(dist.get_rank())
    expected = model_of(dist.get_rank())
    synchronize_running_stats(expected)
    hooks = sorted([SyncBuffersHook(), SyncNormStatsHook()], key=lambda h: get_priority(h.priority))
    assert isinstance(hooks[0], SyncNormStatsHook)
    runner = SimpleNamespace(model=model, hooks=hooks)
    for hook in hooks:
        hook.after_train_epoch(runner)
    assert_same(dict(model.named_buffers()), dict(expected.named_buffers()), EXACT)
    assert_equal_on_all_ranks(model.buffers())


def averaged_model():
    """The copy in an EMAHook is validated instead of the model: it is synchronized too."""
    ema = EMAHook()
    ema.ema_model = ExponentialMovingAverage(model_of(dist.get_rank()), update_buffers=True)
    runner = SimpleNamespace(model=model_of(dist.get_rank()), hooks=[ema])
    SyncNormStatsHook().before_val(runner)
    assert_equal_on_all_ranks(runner.model.buffers())
    assert_equal_on_all_ranks(ema.ema_model.buffers())


def every_type_survives_averaging():
    """mmengine's SyncBuffersHook averages all buffers: of ours nothing may break that agrees."""
    for case in CASES:
        layer = built(case, 5)
        if layer.batch_from is not None:
            layer.num_batches_tracked.fill_(2**22 + 1)
        before = copy.deepcopy(layer.state_dict())
        SyncBuffersHook().after_train_epoch(SimpleNamespace(model=layer))
        after = layer.state_dict()
        for name, value in before.items():
            assert after[name].dtype == value.dtype, (case.name, name)
            if not value.is_floating_point():
                assert torch.equal(after[name], value), (case.name, name)
        assert_same(after, before, 1e-6)


def history_of_rank_0():
    """Which a checkpoint holds, so that all ranks go on as those that resume from it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 1), CBN(5, burnin=0), nn.Conv2d(5, 4, 1), CBN(4))
    x = random_input((2, 3, 4, 4), seed=dist.get_rank())
    link_kalman(model, lambda: model(x))
    for _ in range(dist.get_rank() + 2):  # an empty batch is no iteration
        model(x)
    SyncNormStatsHook().after_train_epoch(SimpleNamespace(model=model, hooks=[]))
    state = model.state_dict()
    assert len(state['1.history_mean']) == 2
    assert state['3.history_iterations'] == 2
    assert '3.history_mean' not in state
    assert_equal_on_all_ranks(state.values())


def windows_of_all_ranks():
    layer = MABN(4, window=2, warmup=0)
    x = random_input((2, 4, 3, 3), seed=dist.get_rank())
    layer(x).square().sum().backward()
    squares = layer.square_window.clone()
    SyncNormStatsHook().after_train_epoch(SimpleNamespace(model=layer, hooks=[]))
    dist.all_reduce(squares)
    torch.testing.assert_close(layer.square_window, squares / dist.get_world_size())
    assert_equal_on_all_ranks(layer.state_dict().values())


class Normalized(nn.Sequential):
    """What estimate_population needs of a model."""

    def val_step(self, x):
        """Predict."""
        self(x)


def population_of_pn():
    """Estimates of PN are those of the batches of all ranks, one of which has larger ones."""
    model = Normalized(PN(5, noise='var', samples=2, population='estimated')).double()
    rank, size = dist.get_rank(), dist.get_world_size()
    batches = [random_input((1 + r, 5, 3, 4), torch.float64, seed=r) * (r + 1) for r in range(size)]
    assert estimate_population(model, [batches[rank]], 1, ['0'], ['0']) == []
    values = torch.cat([x.transpose(0, 1).flatten(1) for x in batches], 1)
    centred = values - values.mean(1, keepdim=True)
    kurtosis = centred.pow(4).mean(1) / centred.square().mean(1).square() - 3
    expected = dict(running_mean=values.mean(1), running_var=values.var(1), kurtosis=kurtosis)
    found = {name: getattr(model[0], name) for name in expected}
    assert_same(found, expected, EXACT)
    assert_equal_on_all_ranks(model.buffers())


def noise_of_each_rank():
    """Each rank draws its own, though mmengine gives all of them the same seed."""
    layer = SyncPN(5, noise='mean', samples=2, warmup=0).double()
    torch.manual_seed(3)
    x = random_input((2, 5, 3, 4), torch.float64)
    y = layer(x)
    first = y.clone()
    dist.broadcast(first, 0)
    assert torch.equal(first, y) == (dist.get_rank() == 0)
    assert_equal_on_all_ranks([*layer.buffers(), torch.get_rng_state()])
