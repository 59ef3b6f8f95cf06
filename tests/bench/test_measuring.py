"""The parts of the benchmark that have a right answer."""

import os

import pytest
import torch
from torch import nn

from normplug.bench import parity
from normplug.bench.cases import R50_FPN, Case, parse_shape
from normplug.bench.compilation import compilations, empty_cache, ran_by
from normplug.bench.contenders import Contender
from normplug.bench.memory import kept_bytes
from normplug.bench.networks import Network
from normplug.bench.timing import Times, in_turns, quantiles
from normplug.errors import UserError
from normplug.kalman import states
from normplug.norms import cbn
from normplug.ops import fused, passes
from normplug.ops.backend import get_backend, set_backend
from normplug.ops.compiled import call
from normplug.stats import Moments


@pytest.fixture(autouse=True)
def eager():
    backend = get_backend()
    set_backend('eager')
    yield
    set_backend(backend)


def case(shape=(2, 6, 4, 5), dtype='float32', layout='contiguous'):
    return Case('', shape, dtype, layout, 'cpu')


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('norm', ['SN', 'SyncSN', 'SSN', 'IBN', 'KN', 'GhostBN'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_our_layers_pass_the_parity_check(norm, dtype, layout, training):
    check = case(dtype=dtype, layout=layout)
    parity.check_parity(Contender(norm, 6, 'eager', 'cpu'), check, training)


@pytest.mark.parametrize(
    ('function', 'message'),
    [
        (lambda f: lambda *a: f(*a).mul_(1.001), 'gradient of x is off by'),
        (lambda f: lambda *a: f(*a).mul_(float('nan')), 'gradient of x is off by nan'),
    ],
    ids=['value', 'nan'],
)
def test_a_wrong_gradient_of_x_is_found(monkeypatch, function, message):
    monkeypatch.setattr(passes, 'backward_input', function(passes.backward_input))
    with pytest.raises(parity.ParityError, match=rf'SN \(eager\) on 2x6x4x5 .* {message}'):
        parity.check_parity(Contender('SN', 6, 'eager', 'cpu'), case(), True)


@pytest.mark.parametrize('which', ['output', 'gradient of x'])
def test_a_wrong_layout_is_found(monkeypatch, which):
    wrong = iter([which == 'output', which != 'output'])

    def result_like(x):
        return torch.empty_like(x.mT.contiguous()).mT if next(wrong) else torch.empty_like(x)

    monkeypatch.setattr(fused, 'result_like', result_like)
    with pytest.raises(parity.ParityError, match=f'the {which} is not contiguous'):
        parity.check_parity(Contender('SN', 6, 'eager', 'cpu'), case(), True)


def test_a_wrong_gradient_of_a_parameter_is_found(monkeypatch):
    honest = passes.backward_reduce

    def reduce(*args):
        dy_nc, dy_centred_nc = honest(*args)
        return dy_nc * 1.001, dy_centred_nc

    monkeypatch.setattr(passes, 'backward_reduce', reduce)
    contender = Contender('IBN', 6, 'eager', 'cpu')
    with pytest.raises(parity.ParityError, match='the gradient of'):
        parity.check_parity(contender, case(), True)
    parity.check_parity(contender, case(), False)  # which has no backward


def test_a_wrong_prediction_is_found(monkeypatch):
    """The reference of KN has it from the formula, the layer through its link."""
    contender = Contender('KN', 6, 'eager', 'cpu')
    parity.check_parity(contender, case(), True)
    honest = states.convolved
    monkeypatch.setattr(states, 'convolved', lambda *a: Moments(*(t * 1.01 for t in honest(*a))))
    with pytest.raises(parity.ParityError, match='the output is off by'):
        parity.check_parity(contender, case(), True)


def test_a_wrong_past_is_found(monkeypatch):
    """The reference of CBN averages E[x²], the layer merges variances that its link gives."""
    contender = Contender('CBN', 6, 'eager', 'cpu')
    for _ in range(2):  # the second with an iteration of this input among the past ones
        parity.check_parity(contender, case(), True)
    honest = cbn.compensated

    def louder(*args):
        mean, var, counts = honest(*args)
        return mean, var * 1.1, counts

    monkeypatch.setattr(cbn, 'compensated', louder)
    with pytest.raises(parity.ParityError, match='the output is off by'):
        parity.check_parity(contender, case(), True)


def test_what_is_kept_is_counted_by_storage():
    x = torch.randn(4, 8, requires_grad=True)  # 128 bytes
    module = nn.Linear(8, 8)

    def kept(forward):
        return kept_bytes(forward, module)

    assert kept(lambda: x.exp()) == 128
    assert kept(lambda: x * x) == 128  # the same storage twice
    assert kept(lambda: x[:2] * x[2:]) == 128  # two views of it
    assert kept(lambda: x.exp() * x.sin()) == 3 * 128
    assert kept(lambda: x + 1) == 0
    assert kept(lambda: module(x)) == 128  # x, not the weight


def test_ours_keeps_x_and_what_is_n_by_c():
    x, _ = case((2, 64, 16, 16)).tensors()
    ours, naive = (Contender(name, 64, 'eager', 'cpu').layer for name in ('SN', 'naive'))
    small = kept_bytes(lambda: ours(x), ours) - x.nbytes
    assert 0 < small < 20 * 2 * 64 * 8
    assert kept_bytes(lambda: naive(x), naive) > 2 * x.nbytes


def test_steps_take_turns_and_each_begins_as_often():
    seen = []
    times = in_turns([lambda i=i: [lambda _: seen.append(i)] for i in range(3)], 'cpu', 0)
    assert seen == [0, 1, 2, *[0, 1, 2], *[1, 2, 0], *[2, 0, 1], *[0, 1, 2], *[1, 2, 0]]
    assert [len(own) for own in times] == [5, 5, 5]  # the first round is warm-up


def test_parts_hand_on_their_values():
    seen = []
    (times,) = in_turns([lambda: [lambda _: 'y', seen.append]], 'cpu', 0)
    assert set(seen) == {'y'}
    assert all(type(t) is Times and len(t.parts) == 2 and min(t.parts) >= 0 for t in times)


def test_quantiles():
    assert quantiles([5, 1, 4, 2, 3, 0]) == (1, 2.5, 4)


def test_shapes():
    assert parse_shape('2,3,1,7') == (2, 3, 1, 7)
    assert len(set(R50_FPN.values())) == len(R50_FPN)
    for text in ('2,3,4', '2,3,0,4', 'a,b,c,d', '2x3x4x5', ''):
        with pytest.raises(UserError, match=rf'--shapes {text}: a shape is four positive'):
            parse_shape(text)
    with pytest.raises(UserError, match=r'--shapes 1,64,1,1: nn\.BatchNorm2d cannot train'):
        parse_shape('1,64,1,1')
    with pytest.raises(ValueError, match='more than 1 value'):
        nn.BatchNorm2d(64)(torch.ones(1, 64, 1, 1))


def test_the_cache_of_the_user_is_back_after_an_empty_one(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    monkeypatch.delenv('TRITON_CACHE_DIR', raising=False)
    with empty_cache():
        inside = os.environ['TORCHINDUCTOR_CACHE_DIR']
        assert inside != str(tmp_path)
    assert os.environ['TORCHINDUCTOR_CACHE_DIR'] == str(tmp_path)
    assert 'TRITON_CACHE_DIR' not in os.environ
    assert not os.path.exists(os.path.dirname(inside))


def double_step(x):
    return (2 * x,)


@pytest.mark.slow
def test_compilations_are_counted():
    before = compilations()
    for size in (3, 4, 5):
        call(double_step, [torch.ones(size)])
    assert compilations() == before + 1


@pytest.mark.parametrize(
    ('backend', 'compiled', 'name'),
    [('auto', 0, 'eager'), ('auto', 3, 'compiled'), ('eager', 3, 'eager'), ('native', 1, 'native')],
)
def test_rows_tell_what_auto_came_to(backend, compiled, name):
    assert ran_by(backend, compiled) == name


@pytest.mark.slow
@pytest.mark.parametrize('norm', ['BN', 'SN'])
def test_heads_have_the_same_work_under_every_norm(norm):
    network = Network('mask-rcnn', 2, 128, 160)
    model = network.build(norm)
    work = []
    model.roi_head.bbox_head.register_forward_pre_hook(lambda _, args: work.append(len(args[0])))
    model.roi_head.mask_head.register_forward_pre_hook(lambda _, args: work.append(len(args[0])))
    with torch.no_grad():
        model(**model.data_preprocessor(network.data(), True), mode='loss')
    assert work == [2 * 512, 2 * 10]  # 512 RoIs an image; its true boxes
