"""CBN against the released layer's outputs, its formula by autograd, and batch norm."""

import copy
import io

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, jvp
from torch.utils.checkpoint import checkpoint

from normplug import CBN, link_kalman
from normplug.kalman.snapshot import undisturbed
from tests.cases import TOLERANCE, assert_same, run
from tests.test_golden import load

EXACT = TOLERANCE[torch.float64]


def linked(conv, *, size=(5, 6), images=2, dtype=torch.float64, seed=0, **options):
    """A convolution and a CBN with random parameters."""
    torch.manual_seed(seed)
    net = nn.Sequential(conv, CBN(conv.out_channels, **{'burnin': 0, **options})).to(dtype)
    with torch.no_grad():
        for parameter in net[1].parameters():
            parameter.normal_()
    relinked(net, torch.zeros(images, conv.in_channels, *size, dtype=dtype))
    return net


def relinked(net, x):
    (report,) = link_kalman(net, lambda: net(x))
    assert report.predecessors == ('0',)
    return net


def batch(net, seed, size=(5, 6), images=2):
    """x, and dy of y's shape."""
    generator = torch.Generator().manual_seed(seed)
    weight = net[0].weight
    x = torch.randn(images, net[0].in_channels, *size, generator=generator).to(weight.dtype) + 0.5
    with torch.no_grad():
        h = net[0](x)
    return x, torch.randn(h.shape, generator=generator).to(weight.dtype)


def step(net, lr):
    with torch.no_grad():
        for parameter in net[0].parameters():
            parameter -= lr * parameter.grad


def training(net, seeds, lr=0.02, **options):
    """What ``run`` finds of the last of some iterations."""
    for seed in seeds:
        found = run(net, *batch(net, seed, **options))
        step(net, lr)
    return {name: tensor.clone() for name, tensor in found.items()}


def entries(net):
    return len(net[1].history.entries)


@pytest.mark.parametrize('inside', [False, True])
def test_released_layer(inside):
    golden = load('cbn_buffer3_burnin1' + inside * '_eps_inside')
    own = CBN(6, burnin=1, eps_inside=inside, released_statistics=True)
    net = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=False), own).double()
    before = {k.removeprefix('before.'): t for k, t in golden.items() if k.startswith('before.')}
    net.load_state_dict(
        {k.replace('conv.', '0.').replace('bn.', '1.'): t for k, t in before.items()}, strict=False
    )
    relinked(net, golden['x'][0])
    for i in range(7):
        with torch.no_grad():
            net[0].weight.copy_(golden['conv_weight'][i])
        got = run(net, golden['x'][i], golden['dy'][i])
        want = {'y': golden['y'][i], 'dx': golden['dx'][i]}
        want |= {'grad.0.weight': golden['grad.conv.weight'][i]}
        want |= {f'grad.1.{name}': golden[f'grad.bn.{name}'][i] for name in ('weight', 'bias')}
        for name in ('running_mean', 'running_var'):
            want[f'1.{name}'] = golden[f'after.bn.{name}'][i]
        assert_same({name: got[name] for name in want}, want, EXACT)
    got = run(net.eval(), golden['x'][0], golden['dy'][0])
    want = {'y': golden['eval_y'], 'dx': golden['eval_dx']}
    assert_same({name: got[name] for name in want}, want, EXACT)


class Reference:
    """The formula on the inputs of the past themselves, differentiated by torch."""

    def __init__(self, net):
        self.net, self.past, self.dropped, self.kept = copy.deepcopy(net), [], 0, 0

    def moments(self, x, weight):
        conv = copy.copy(self.net[0])
        h = conv._conv_forward(x, weight, None).transpose(0, 1).flatten(1)
        return h.mean(1), h.square().mean(1)

    def __call__(self, x, dy):
        conv, norm = self.net
        self.net.zero_grad()
        leaf = x.clone().requires_grad_()
        means, squares = [], []
        for past_x, past_weight in self.past[-norm.buffer_num :]:
            now, slope = jvp(
                lambda weight, x=past_x: self.moments(x, weight),
                (past_weight,),
                (conv.weight.detach() - past_weight,),
            )
            means.append(now[0] + slope[0])
            squares.append(now[1] + slope[1])
        own = self.moments(leaf, conv.weight)
        used = []
        for c in range(norm.num_features):
            m, s = [own[0][c]], [own[1][c]]
            for mean, square in zip(means, squares, strict=True):
                if square[c] - mean[c] ** 2 >= 0:
                    m.append(mean[c])
                    s.append(square[c])
                    self.kept += 1
                else:
                    self.dropped += 1
            mean, square = torch.stack(m).mean(), torch.stack(s).mean()
            used.append(torch.stack([mean, square - mean**2]))
        mean, var = torch.stack(used, 1)
        h = conv._conv_forward(leaf, conv.weight, None)
        shape = (1, -1) + (1,) * (h.dim() - 2)
        x_hat = (h - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()
        y = norm.weight.view(shape) * x_hat + norm.bias.view(shape)
        y.backward(dy)
        self.past.append((x, conv.weight.detach().clone()))
        grads = {f'grad.{n}': p.grad for n, p in self.net.named_parameters() if p.grad is not None}
        return {'y': y.detach(), 'dx': leaf.grad, **grads}


CONVOLUTIONS = {
    'plain': (nn.Conv2d(3, 4, 3, padding=1, bias=False), (5, 6)),
    'strided': (nn.Conv2d(3, 4, (3, 2), (2, 1), (0, 1), (1, 2), bias=False), (7, 6)),
    'grouped': (nn.Conv2d(4, 6, 3, groups=2, bias=False), (5, 6)),
    'depthwise': (nn.Conv2d(3, 6, 3, groups=3, bias=False), (5, 6)),
    'pointwise': (nn.Conv2d(3, 4, 1, bias=False), (5, 6)),
    'same': (nn.Conv2d(3, 4, (2, 3), padding='same', dilation=(1, 2), bias=False), (5, 6)),
    '1d': (nn.Conv1d(3, 4, 3, padding=1, bias=False), (9,)),
    '3d': (nn.Conv3d(2, 3, 2, padding=(1, 0, 1), bias=False), (3, 4, 2)),
}


@pytest.mark.filterwarnings('ignore:Using padding=.same. with even kernel')
@pytest.mark.parametrize(('conv', 'size'), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_the_formula(conv, size):
    net = linked(copy.deepcopy(conv), size=size, buffer_num=2)
    reference = Reference(net)
    # Also twice with the same weight, as gradients are accumulated; and one image.
    for seed, (lr, images) in enumerate([(0.02, 2), (0.0, 2), (0.05, 1), (0.4, 3), (0.02, 2)]):
        x, dy = batch(net, seed, size, images)
        want = reference(x, dy)
        got = run(net, x, dy)
        assert_same({name: got[name] for name in want}, want, 10 * EXACT)
        step(net, lr)
        reference.net[0].load_state_dict(net[0].state_dict())


def test_channels_of_a_negative_variance_take_no_part():
    net = linked(nn.Conv2d(3, 8, 3, bias=False))
    reference = Reference(net)
    for seed in range(3):
        x, dy = batch(net, seed)
        want = reference(x, dy)
        got = run(net, x, dy)
        assert_same({name: got[name] for name in want}, want, 10 * EXACT)
        with torch.no_grad():
            net[0].weight.add_(0.3 * torch.randn_like(net[0].weight))
        reference.net[0].load_state_dict(net[0].state_dict())
    assert reference.dropped > 4
    assert reference.kept > 4


def test_gradients_of_the_layer_alone():
    """By x, with past iterations: any number of times."""
    net = linked(nn.Conv2d(2, 2, 1, bias=False), size=(2, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
    training(net, range(2), lr=0.1, size=(2, 3))
    x = batch(net, 3, (2, 3))[0].requires_grad_()
    past = [t.clone() for t in net[1].history.entries[0]]

    def function(x):
        twin = relinked(copy.deepcopy(net), x.detach())  # which remembers nothing of the last call
        return twin(x)

    assert gradcheck(function, x)
    assert gradgradcheck(function, x, fast_mode=True)
    assert_same(dict(enumerate(net[1].history.entries[0])), dict(enumerate(past)), 0)


def test_a_bias_before_the_layer_changes_nothing():
    """Also one that has moved since."""
    conv = nn.Conv2d(3, 4, 3)
    net, without = (linked(c) for c in (conv, nn.Conv2d(3, 4, 3, bias=False)))
    without.load_state_dict({k: t for k, t in net.state_dict().items() if k != '0.bias'})
    for seed in range(4):
        x, dy = batch(net, seed)
        got, want = run(net, x, dy), run(without, x, dy)
        for name in ('y', 'dx', 'grad.0.weight'):
            torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-11)
        step(net, 0.05)
        step(without, 0.05)
        with torch.no_grad():
            net[0].bias.normal_(0, 3)


def test_at_first_it_is_batch_norm():
    """In burn-in, and where nothing is remembered yet."""
    net = linked(nn.Conv2d(3, 4, 3), burnin=2)
    native = copy.deepcopy(net)
    native[1] = nn.BatchNorm2d(4).double()
    native[1].load_state_dict(net[1].state_dict())
    for seed in range(3):
        x, dy = batch(net, seed)
        assert entries(net) == 0
        assert_same(run(net, x, dy), run(native, x, dy), EXACT)
    x, dy = batch(net, 3)
    assert entries(net) == 1
    got, want = run(net, x, dy), run(native, x, dy)
    assert (got['y'] - want['y']).abs().max() > 0.01
    same = ('1.running_mean', '1.running_var', '1.num_batches_tracked')  # of the batch alone
    assert_same({n: got[n] for n in same}, {n: want[n] for n in same}, EXACT)
    net.eval(), native.eval()
    torch.testing.assert_close(net(x), native(x), rtol=1e-12, atol=1e-12)


def by_torch(net, fresh):
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file))


def by_mmengine(net, fresh):
    load_state_dict(fresh, get_state_dict(net), strict=True)


@pytest.mark.parametrize('resume', [by_torch, by_mmengine])
@pytest.mark.parametrize('done', [1, 2, 4, 7])
def test_a_resumed_training_is_the_same_to_the_bit(resume, done):
    """In burn-in, while the history fills, and after."""
    whole = linked(nn.Conv2d(3, 4, 3), dtype=torch.float32, burnin=1)
    part = copy.deepcopy(whole)
    relinked(part, batch(part, 0)[0])
    training(part, range(done))
    fresh = linked(nn.Conv2d(3, 4, 3), dtype=torch.float32, burnin=1, seed=5)
    training(fresh, [8])  # what it remembers is replaced
    resume(part, fresh)
    relinked(fresh, batch(fresh, 0)[0])
    training(whole, range(done))
    more = range(done, done + 4)
    assert_same(training(fresh, more), training(whole, more), 0)
    assert_same(fresh.state_dict(), whole.state_dict(), 0)
    assert entries(whole) == 3


def test_the_state_dict_grows_from_that_of_a_batch_norm():
    net = linked(nn.Conv2d(3, 4, 3), burnin=1)
    names = nn.BatchNorm2d(4).state_dict().keys()
    assert net[1].state_dict().keys() == names
    training(net, [0])
    assert net[1].state_dict().keys() - names == {'history_iterations'}
    training(net, [1])
    own = net[1].state_dict()
    assert {n: tuple(own[n].shape) for n in own.keys() - names} == {
        'history_iterations': (),
        'history_mean': (1, 4),
        'history_var': (1, 4),
        'history_mean_slope': (1, 1, 27),
        'history_var_slope': (1, 4, 27),
        'history_weight': (1, 4, 27),
    }
    net[1].load_state_dict(nn.BatchNorm2d(4).state_dict())  # without a warning
    assert net[1].state_dict().keys() == names


def test_a_layer_without_memory_is_given_the_history():
    """As FSDP and others build one: on the meta device, with the tensors of the checkpoint."""
    net = linked(nn.Conv2d(3, 4, 3), burnin=0)
    training(net, [0])
    with torch.device('meta'):
        layer = CBN(4)
    layer.load_state_dict(net[1].state_dict(), assign=True)
    assert {t.device.type for entry in layer.history.entries for t in entry} == {'cpu'}
    assert_same(layer.state_dict(), net[1].state_dict(), 0)


def test_a_history_of_another_convolution_is_forgotten():
    net, other = linked(nn.Conv2d(3, 4, 3)), linked(nn.Conv2d(2, 4, 3))
    training(net, [0])
    other[1].load_state_dict(net[1].state_dict())
    with pytest.warns(UserWarning, match=r'CBN layer 1 forgets .* another convolution than 0'):
        relinked(other, batch(other, 0)[0])
    assert entries(other) == 0


@pytest.mark.parametrize('use_reentrant', [True, False])
def test_a_recomputed_block_remembers_once(use_reentrant):
    plain = linked(nn.Conv2d(3, 4, 3))
    saving = relinked(copy.deepcopy(plain), batch(plain, 0)[0])
    for seed in range(4):
        x, dy = batch(plain, seed)
        leaf = x.clone().requires_grad_()
        saving.zero_grad()
        checkpoint(saving, leaf, use_reentrant=use_reentrant).backward(dy)
        want = run(plain, x, dy)
        got = {f'grad.{n}': p.grad for n, p in saving.named_parameters()} | {'dx': leaf.grad}
        assert_same(got, {name: want[name] for name in got}, EXACT)
        assert_same(saving.state_dict(), plain.state_dict(), EXACT)
        step(plain, 0.05)
        step(saving, 0.05)


def test_a_recomputation_that_is_not_sure_is_refused():
    net = linked(nn.Conv2d(3, 4, 3))
    xs = [batch(net, seed)[0].requires_grad_() for seed in range(2)]
    y = sum(checkpoint(net, x, use_reentrant=False).sum() for x in xs)
    with pytest.raises(ValueError, match=r"type='CBN'.*activation checkpointing.*with_cp=False"):
        y.backward()


def transformed(net, x):
    return functional_call(net, {name: t + 0 for name, t in net.named_buffers()}, (x,))


def test_what_is_no_iteration_is_not_remembered():
    net = linked(nn.Conv2d(3, 4, 3))
    training(net, [0])
    before = {name: t.clone() for name, t in net.state_dict().items()}
    x = batch(net, 1)[0]
    net.eval()(x)
    net.train()(x[:0])
    net(x[:1, :, :3, :3])  # one value per channel
    with net[1].by_batch():
        net(x[:0])
    relinked(net, x)
    with undisturbed(net):
        net(x)
    torch.func.grad(lambda x: transformed(net, x).square().sum())(x)
    assert_same(net.state_dict(), before, 0)
    frozen = linked(nn.Conv2d(3, 4, 3), frozen=False)
    frozen[1] = CBN(4, frozen=True).double()
    frozen(x)  # which needs no link
    assert entries(frozen) == 0


@pytest.mark.parametrize('poison', [float('nan'), float('inf')])
def test_a_batch_that_is_not_finite_takes_no_part(poison):
    net = linked(nn.Conv2d(3, 4, 3))
    training(net, [0])
    x = batch(net, 1)[0]
    twin = relinked(copy.deepcopy(net), x)
    spoiled = x.clone()
    spoiled[0, 1, 2, 3] = poison
    assert not net(spoiled).isfinite().all()
    assert entries(net) == 2
    assert not any(t.isnan().any() for t in net.state_dict().values())  # checkpoints may have none
    torch.testing.assert_close(net(x), twin(x), rtol=0, atol=0)


def test_copies_remember_and_have_to_be_linked():
    net = linked(nn.Conv2d(3, 4, 3))
    training(net, [0, 1])
    twin, (x, _) = copy.deepcopy(net), batch(net, 2)
    with pytest.raises(ValueError, match=r"type='CBN'.*never linked .*KalmanLinkHook"):
        twin(x)
    relinked(twin, x)
    torch.testing.assert_close(twin(x), net(x), rtol=0, atol=0)
    net[1].reset_parameters()
    assert entries(net) == 0
    assert entries(twin) == 3


def test_an_average_of_the_model_has_no_history():
    net = linked(nn.Conv2d(3, 4, 3))
    average = ExponentialMovingAverage(net, update_buffers=True)
    training(net, range(4))
    average.update_parameters(net)
    average.update_parameters(net)
    assert entries(average.module) == 0
    average.module.eval()(batch(net, 0)[0])


def test_the_history_moves_with_the_layer():
    net = linked(nn.Conv2d(3, 4, 3))
    training(net, [0])
    net.float()
    assert {t.dtype for t in net[1].history.entries[0]} == {torch.float32}
    training(net, [1])


def test_autocast():
    net = linked(nn.Conv2d(3, 4, 3), dtype=torch.float32)
    twin = relinked(copy.deepcopy(net), batch(net, 0)[0])
    for seed in range(3):
        x, dy = batch(net, seed)
        want = run(net, x, dy)
        with torch.autocast('cpu', torch.bfloat16):
            y = twin(x)
        y.backward(dy.to(y.dtype))
        assert_same({'y': y.detach()}, {'y': want['y']}, 4 * TOLERANCE[torch.bfloat16])
    slopes = [t for entry in twin[1].history.entries for t in entry[2:]]
    assert {t.dtype for t in slopes} == {torch.float32}
    for got, want in zip(twin[1].history.entries, net[1].history.entries, strict=True):
        scale = want.var_slope.abs().max()
        assert (got.var_slope - want.var_slope).abs().max() < 0.02 * scale


def test_compiled_as_parts_of_a_model():
    net = linked(nn.Conv2d(3, 4, 3), dtype=torch.float32)
    twin = relinked(copy.deepcopy(net), batch(net, 0)[0])
    torch.compiler.reset()
    compiled = torch.compile(twin, backend='aot_eager')
    for seed in range(3):
        x, dy = batch(net, seed)
        got = {n.replace('_orig_mod.', ''): t for n, t in run(compiled, x, dy).items()}
        assert_same(got, run(net, x, dy), TOLERANCE[torch.float32])
        step(net, 0.05)
        step(twin, 0.05)
    assert entries(twin) == 3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'buffer_num': 0}, 'buffer_num must be a positive integer, got 0'),
        ({'buffer_num': True}, 'buffer_num must be a positive integer'),
        ({'burnin': -1}, r'burnin must be a number of iterations \(not epochs\)'),
        ({'burnin': 0.5}, 'burnin must be a number of iterations'),
        ({'eps_inside': 1}, 'eps_inside must be True or False, got 1'),
        ({'released_statistics': 'yes'}, "released_statistics must be True or False, got 'yes'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=f"type='CBN'.*{message}"):
        CBN(4, **options)


def test_eps_outside_has_no_script():
    with pytest.raises(ValueError, match=r'eps_inside=False has no form for torch\.jit\.script'):
        torch.jit.script(CBN(4, eps_inside=False).eval())
