"""Every way to average models, over every normalizer: the averaged layer is a valid one."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage, MomentumAnnealingEMA, StochasticWeightAverage
from torch import nn
from torch.optim.swa_utils import (
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_multi_avg_fn,
)

from normplug import SN, SSN
from normplug.norms.ssn import set_radius
from normplug.norms.switchable import SwitchableNorm
from tests.cases import CASES, built, random_input, ssn

DECAY = 0.99


class StateDictAverage:
    """What timm's ModelEMA and mmdet's MeanTeacherHook do: all that is floating point, or all."""

    def __init__(self, source, floats_only=True):
        self.module, self.floats_only = copy.deepcopy(source), floats_only

    @torch.no_grad()
    def update_parameters(self, source):
        state = source.state_dict()
        for name, value in self.module.state_dict().items():
            if value.is_floating_point() or not self.floats_only:
                value.copy_(value * DECAY + state[name] * (1 - DECAY))


class ForeachAverage(StateDictAverage):
    """One foreach lerp over all floating-point parameters and buffers."""

    @torch.no_grad()
    def update_parameters(self, source):
        pairs = zip(self.module.state_dict().values(), source.state_dict().values(), strict=True)
        own, new = zip(*((a, b) for a, b in pairs if a.is_floating_point()), strict=True)
        torch._foreach_lerp_(own, new, 1 - DECAY)


class Soup(StateDictAverage):
    """The mean of checkpoints, of each key, loaded into a model."""

    def __init__(self, source):
        super().__init__(source)
        self.states = [copy.deepcopy(source.state_dict())]

    def update_parameters(self, source):
        self.states.append(copy.deepcopy(source.state_dict()))
        number = len(self.states)
        mean = {name: sum(s[name] for s in self.states) / number for name in self.states[0]}
        self.module.load_state_dict(mean)


def of_torch(**options):
    return lambda source: AveragedModel(source, use_buffers=True, **options)


def of_mmengine(kind, **options):
    return lambda source: kind(source, update_buffers=True, **options)


AVERAGES = {
    'torch_swa': of_torch(),
    'torch_swa_foreach': of_torch(multi_avg_fn=get_swa_multi_avg_fn()),
    'torch_ema': of_torch(avg_fn=get_ema_avg_fn(DECAY)),
    'torch_ema_foreach': of_torch(multi_avg_fn=get_ema_multi_avg_fn(DECAY)),
    'torch_parameters': AveragedModel,
    'mm_ema': of_mmengine(ExponentialMovingAverage, momentum=1 - DECAY),
    'mm_annealing': of_mmengine(MomentumAnnealingEMA, momentum=1 - DECAY, gamma=2),
    'mm_swa': of_mmengine(StochasticWeightAverage),
    'mm_parameters': ExponentialMovingAverage,
    'state_dict_floats': StateDictAverage,
    'state_dict_all': lambda source: StateDictAverage(source, floats_only=False),
    'foreach': ForeachAverage,
    'soup': Soup,
}
# torch refuses to divide integers by foreach: so it does with batch norm's count.
COUNTS_REFUSED = ('torch_swa_foreach',)

all_averages = pytest.mark.parametrize('average', AVERAGES)
# Synchronized types have the state of the others, and in one process their computation.
LOCAL = [case for case in CASES if not case.name.startswith('sync_')]
all_cases = pytest.mark.parametrize('case', LOCAL, ids=lambda case: case.name)


def averaged(average, source):
    if average in COUNTS_REFUSED and hasattr(source, 'num_batches_tracked'):
        source.num_batches_tracked = None  # as it may be of a batch norm, too
    return AVERAGES[average](source)


def assert_valid(layer):
    if isinstance(layer, SwitchableNorm):
        for ratios in layer.ratios():
            assert (ratios >= 0).all()
            torch.testing.assert_close(ratios.sum().item(), 1.0)
    assert torch.isfinite(layer.eval()(random_input((2, layer.num_features, 3, 3)))).all()


@all_averages
@all_cases
def test_a_source_that_stays_is_its_average(case, average):
    source = built(case, 4).eval()
    mean = averaged(average, source)
    for _ in range(5):
        mean.update_parameters(source)
    assert_valid(mean.module)
    x = random_input((2, 4, 5, 3))
    torch.testing.assert_close(mean.module(x), source(x), rtol=1e-4, atol=1e-5)


@all_averages
@all_cases
def test_an_average_of_layers_is_a_layer(case, average):
    source = built(case, 4)
    mean = averaged(average, source)
    for seed in range(1, 5):
        source.load_state_dict(built(case, 4, seed=seed).state_dict(), strict=False)
        mean.update_parameters(source)
        assert_valid(mean.module)


@all_averages
@pytest.mark.parametrize('using_bn', [True, False])
def test_what_ssn_chooses_while_it_is_averaged(average, using_bn):
    source = SSN(4, using_bn=using_bn).eval()
    with torch.no_grad():
        source.mean_weight[0] += 0.3
        source.var_weight[1] += 0.3
    mean = averaged(average, source)
    mean.update_parameters(source)
    set_radius(source, 0.9)
    for _ in range(3):
        mean.update_parameters(source)
        assert mean.module.is_decided()
        assert_valid(mean.module)
        for ratios, want in zip(mean.module.ratios(), source.ratios(), strict=True):
            assert torch.equal(ratios, want)
    kept = [ratios.clone() for ratios in mean.module.ratios()]
    set_radius(mean.module, 1.0)  # the choice was made before
    for ratios, want in zip(mean.module.ratios(), kept, strict=True):
        assert torch.equal(ratios, want)


@pytest.mark.parametrize('share', [1e-30, 0.001, 0.5, 1 + 1e-6])
def test_any_part_of_a_choice_is_the_choice(share):
    layer = ssn(4, 0.9, mean_choice=[0, 0, share], var_choice=[share, 0, 0])
    assert [ratios.tolist() for ratios in layer.ratios()] == [[0, 0, 1], [1, 0, 0]]
    whole = ssn(4, 0.9, mean_choice=[0, 0, 1], var_choice=[1, 0, 0])
    x = random_input((2, 4, 3, 5))
    assert torch.equal(layer(x), whole(x))


def test_a_choice_of_old_checkpoints_and_of_averaged_ones_loads():
    state = SSN(4).state_dict()
    state['mean_choice'] = torch.tensor([0.0, 0.25, 0.0])
    state['var_choice'] = torch.tensor([0.0, 0.0, 1.0])
    layer = SSN(4)
    layer.load_state_dict(state)
    assert [ratios.tolist() for ratios in layer.ratios()] == [[0, 1, 0], [0, 0, 1]]
    assert torch.equal(layer.mean_choice, state['mean_choice'])  # resumed, bit for bit


class Pair(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.student = nn.Sequential(nn.Conv2d(3, 4, 3), norm(4))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)


@pytest.mark.parametrize('norm', [SN, SSN])
def test_a_mean_teacher_with_buffers_computes_what_its_student_computes(norm):
    hooks = pytest.importorskip('mmdet.engine.hooks')
    pair, hook = Pair(norm), hooks.MeanTeacherHook(momentum=0.5, skip_buffer=False)
    pair.student(random_input((4, 3, 6, 6)))
    if norm is SSN:
        with torch.no_grad():
            pair.student[1].mean_weight[1] += 0.2
            pair.student[1].var_weight[2] += 0.2
        set_radius(pair.student, 0.95)
    for _ in range(30):
        hook.momentum_update(pair, hook.momentum)
    pair.eval()
    x = random_input((2, 3, 6, 6))
    torch.testing.assert_close(pair.teacher(x), pair.student(x))
