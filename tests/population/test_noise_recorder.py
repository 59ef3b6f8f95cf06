"""What is recorded of a layer's batches, against a transcription of the definitions in numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug import IBN, KN, SN, SSN, GhostBN, PortableSyncBN
from normplug.norms import CBN, EBN, GW, MABN, SW, IterNorm
from normplug.population import noise_recorder
from normplug.population.central_moments import central_moments
from normplug.population.noise_recorder import NoiseRecorder, layers_with_batch_noise

LAYERS = {
    'bn': lambda: nn.BatchNorm2d(6),
    'no affine': lambda: nn.BatchNorm2d(6, affine=False),
    'sync': lambda: nn.SyncBatchNorm(6),
    'sn': lambda: SN(6),
    'ssn': lambda: SSN(6),
    'kn': lambda: KN(6),
    'ibn': lambda: IBN(6),
    'ghost': lambda: GhostBN(6, virtual_batch_size=2),
    'portable': lambda: PortableSyncBN(6),
}


class Net(nn.Module):
    """A norm on the input itself, an inplace activation, and a loss of each image."""

    def __init__(self, layer, calls=1, reentrant=None):
        super().__init__()
        self.norm = layer
        self.calls = calls
        self.reentrant = reentrant
        self.register_buffer('mix', torch.randn(6, 5, generator=torch.Generator().manual_seed(3)))

    def part(self, x):
        return F.relu(self.norm(x), inplace=True)

    def forward(self, *inputs):
        return sum(self.loss(self.features(x)).mean() for x in inputs[: self.calls])

    def features(self, x):
        if self.reentrant is None:
            return self.part(x)
        return checkpoint(self.part, x.requires_grad_(), use_reentrant=self.reentrant)

    def loss(self, y):
        """Of each image, (N,)."""
        scores = torch.tanh(y).mean((2, 3)).to(self.mix.dtype) @ self.mix
        return -scores.log_softmax(1)[:, 0]


def built(name, **options):
    torch.manual_seed(4)
    layer = LAYERS[name]()
    if layer.weight is not None:
        with torch.no_grad():
            layer.weight.normal_()
            layer.bias.normal_()
            layer.weight[1] = 0
    return Net(layer, **options).double().train()


def batches(*sizes, pixels=(3, 2)):
    generator = torch.Generator().manual_seed(5)
    data = []
    for i, n in enumerate(sizes):
        x = torch.randn(n, 6, *pixels, generator=generator).double().exp()
        data.append(x * torch.arange(1, 7).view(6, 1, 1) + 0.3 * i - 20)
    return data


def recorded(net, data, scale=1.0):
    layers = layers_with_batch_noise(net)
    assert list(layers) == ['norm']
    recorder = NoiseRecorder(layers, scale)
    with recorder.watching():
        for inputs in data:
            loss = net(*inputs) if isinstance(inputs, tuple) else net(inputs)
            if loss.requires_grad:
                (loss * scale).backward()
            recorder.end_batch()
    return recorder.records()


def excess_kurtosis(values):
    about = values - values.mean(0)
    return (about**4).mean(0) / (about**2).mean(0) ** 2 - 3


def transcription(layer, data, first=0):
    """``data``: a list of (N, C, H, W) arrays, the batches whose statistics are used."""
    columns = [x.transpose(0, 2, 3, 1).reshape(-1, 6)[:, first:] for x in data]
    means = np.stack([c.mean(0) for c in columns])
    deviations = np.stack([c.std(0) for c in columns])
    whole = np.concatenate(columns)
    var_mean, var_std = means.var(0, ddof=1), deviations.var(0, ddof=1)
    variance = whole.var(0) + var_mean / len(data)
    rho = excess_kurtosis(whole)
    images = 1 / np.mean([1 / len(x) for x in data])
    values = np.mean([len(c) for c in columns])
    gamma, beta = np.ones(6), np.zeros(6)
    if layer.weight is not None:
        gamma, beta = (t.detach().numpy() for t in (layer.weight, layer.bias))
    gamma, beta = gamma[first:], beta[first:]
    return {
        'mean_noise': np.mean(var_mean / variance),
        'mean_law': 1 / images,
        'mean_samples': np.sort(variance / var_mean)[(len(rho) - 1) // 2],
        'std_noise': np.mean(var_std / variance),
        'std_law': np.mean((rho + 2) / (4 * images)),
        'std_samples': np.sort(variance * (rho + 2) / (4 * var_std))[(len(rho) - 1) // 2],
        'kurtosis': rho.mean(),
        'kurtosis_median': np.sort(rho)[(len(rho) - 1) // 2],
        'jacobian_trace': np.mean(gamma / np.sqrt(variance) * (values - 2)),
        'squared_norm': np.mean(values * (gamma**2 + beta**2)),
        'gamma': gamma.mean(),
        'sigma': np.sqrt(variance).mean(),
        'images': images,
        'values': values,
        'constant_channels': 0,
    }, (gamma, rho, images)


def strengths(net, data, first):
    """F_γ and E[(dL/dβ)²] of a batch norm, by a γ and a β of its own for each image.

    The first channels are those under instance norm.
    """
    squares = []
    for x in data:
        x_hat = F.batch_norm(x, None, None, training=True)
        x_hat = torch.cat((F.instance_norm(x[:, :first]), x_hat[:, first:]), 1)
        own = [
            t.detach().repeat(len(x), 1).requires_grad_() for t in (net.norm.weight, net.norm.bias)
        ]
        y = own[0][..., None, None] * x_hat + own[1][..., None, None]
        loss = net.loss(y.relu()).sum()
        squares.append([grad.square() for grad in torch.autograd.grad(loss, own)])
    return [torch.cat(parts).mean(0).numpy()[first:] for parts in zip(*squares, strict=True)]


@pytest.mark.parametrize('name', [name for name in LAYERS if name not in ('kn', 'sync')])
def test_written_out(name):
    net, data = built(name), batches(4, 4, 6, 2, 4)
    first = 3 if name == 'ibn' else 0
    used = [g.numpy() for x in data for g in (x.split(2) if name == 'ghost' else [x])]
    (record,) = recorded(net, data).values()
    want, (gamma, rho, images) = transcription(net.norm, used, first)
    zeta = record.pop('zeta', None), record.pop('decay', None)
    assert record == pytest.approx(want, rel=1e-5)  # the moments of float32 inputs would be float32
    if name in ('bn', 'portable', 'ibn'):
        fisher, curvature = strengths(net, data, first)
        expected = (rho + 2) / (8 * images) * fisher + curvature / (2 * images)
        assert zeta == pytest.approx((expected.mean(), (expected * gamma**2).sum()), rel=1e-5)
    assert (zeta == (None, None)) == (name == 'no affine')


@pytest.mark.parametrize('name', ['bn', 'portable'])
@pytest.mark.parametrize('options', [{'reentrant': False}, {'reentrant': True}, {}])
def test_checkpointing_and_a_scaled_loss_change_nothing(name, options):
    plain = recorded(built(name), batches(4, 4, 2))
    found = recorded(built(name, **options), batches(4, 4, 2), scale=1024.0)
    assert 'zeta' in plain['norm']
    assert found['norm'] == pytest.approx(plain['norm'], rel=1e-9)


def test_only_torchs_layers_compute_moments_in_a_recomputation(monkeypatch):
    """Of a Sync layer of ours that would be a collective more."""
    seen = []
    spied = lambda x: (seen.append(x), central_moments(x))[1]  # noqa: E731
    monkeypatch.setattr(noise_recorder, 'central_moments', spied)
    for name, calls in (('portable', 3), ('bn', 6)):
        seen.clear()
        recorded(built(name, reentrant=False), batches(4, 4, 2))
        assert len(seen) == calls


def test_without_pixels():
    data = batches(4, 4, 6, pixels=(1, 1))
    found = recorded(built('bn'), data)['norm']
    flat = nn.BatchNorm1d(6).double()
    flat.load_state_dict(built('bn').norm.state_dict())
    net = nn.Sequential(nn.Flatten(), flat, nn.Unflatten(1, (6, 1, 1)), nn.ReLU())
    recorder = NoiseRecorder(layers_with_batch_noise(net))
    with recorder.watching():
        for x in data:
            built('bn').loss(net(x)).mean().backward()
            recorder.end_batch()
    assert recorder.records() == {'1': pytest.approx(found)}


@pytest.mark.parametrize('name', ['bn', 'portable'])
def test_in_bfloat16(name):
    """γ and β stay float32, as under AMP."""
    data = [x.bfloat16() for x in batches(4, 4, 6)]
    found = recorded(built(name).float(), data)['norm']
    want = recorded(built(name).float(), [x.float() for x in data])['norm']
    assert found.pop('zeta') == pytest.approx(want.pop('zeta'), rel=0.1)
    assert found.pop('decay') == pytest.approx(want.pop('decay'), rel=0.1)
    assert found == pytest.approx(want, rel=1e-5)


def test_each_call_has_a_population_of_its_own():
    pairs = list(zip(batches(4, 4, 4), [100 * x + 7 for x in batches(4, 4, 4)], strict=True))
    found = recorded(built('bn', calls=2), pairs)
    assert list(found) == ['norm', 'norm/call_2']
    for name, data in zip(found, zip(*pairs, strict=True), strict=True):
        want, _ = transcription(built('bn').norm, [x.numpy() for x in data])
        assert found[name] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(('name', 'draw'), [('bn', 'normal'), ('sn', 'uniform')])
def test_independent_values_meet_the_law(name, draw):
    """Of one value an image, M of the law is N: within the noise of 400 batches of 6 channels."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(400, 16, 6, 1, 1, generator=generator)
    x = x if draw == 'normal' else torch.special.ndtr(x)
    found = recorded(built(name), list(x.double() * 3 + 1))['norm']
    assert found['images'] == found['values'] == 16
    assert found['kurtosis'] == pytest.approx(0 if draw == 'normal' else -1.2, abs=0.1)
    assert found['mean_law'] == 1 / 16
    assert found['mean_noise'] == pytest.approx(found['mean_law'], rel=0.1)
    assert found['mean_samples'] == pytest.approx(16, rel=0.1)
    assert found['std_noise'] == pytest.approx(found['std_law'], rel=0.15)
    assert found['std_samples'] == pytest.approx(16, rel=0.15)


@pytest.mark.parametrize('shared', [0.0, 0.3, 1.0])
def test_the_effective_number_of_samples(shared):
    """Pixels of an image are correlated by ``shared``: M is N where they agree, else N·H·W.

    Of N images with P pixels, var(μ_B) = σ²(r + (1 − r)/P)/N. Squares of Gaussians are correlated
    by r², so that it is r² for σ_B.
    """
    generator = torch.Generator().manual_seed(7)
    images, own = (
        torch.randn(400, 8, 6, *pixels, generator=generator).double() for pixels in ((1, 1), (3, 3))
    )
    x = shared**0.5 * images + (1 - shared) ** 0.5 * own
    found = recorded(built('bn'), list(x))['norm']
    assert (found['images'], found['values']) == (8, 72)
    assert found['mean_samples'] == pytest.approx(8 / (shared + (1 - shared) / 9), rel=0.1)
    assert found['std_samples'] == pytest.approx(8 / (shared**2 + (1 - shared**2) / 9), rel=0.15)


def test_behind_a_batch_norm_the_mean_scatters_less_than_that_of_independent_values():
    """Σx̂ and Σx̂² of a batch are fixed, and take most of the scatter of Σ relu(x̂) away.

    Of Gaussian values, var(relu) = 1/2 − 1/2π; of it 1/4 goes with x̂ and 1/4π with x̂².
    """
    norms = {'first': nn.BatchNorm2d(6).double(), 'second': nn.BatchNorm2d(6).double()}
    recorder = NoiseRecorder(norms)
    generator = torch.Generator().manual_seed(8)
    with recorder.watching():
        for x in torch.randn(400, 128, 6, 1, 1, generator=generator).double():
            norms['second'](norms['first'](x).relu())
            recorder.end_batch()
    found = recorder.records()
    assert found['first']['mean_samples'] == pytest.approx(128, rel=0.1)
    share = 1 - (1 / 4 + 1 / (4 * np.pi)) / (1 / 2 - 1 / (2 * np.pi))
    assert share == pytest.approx(1 / 30, rel=0.02)
    assert found['second']['mean_samples'] == pytest.approx(128 / share, rel=0.1)


def test_batches_of_one_value():
    """All of the variance is between them, whatever their number."""
    for number in (2, 5):
        data = [x.expand(1, 6, 2, 2) for x in batches(*[1] * number, pixels=(1, 1))]
        found = recorded(built('bn'), data)['norm']
        assert found['images'] == 1
        assert found['mean_noise'] == pytest.approx(1)
        assert found['std_noise'] == pytest.approx(0, abs=1e-15)


def test_constant_channels_are_left_out():
    data = [x.float() for x in batches(4, 4, 4, pixels=(5, 2))]
    kept = [0, 1, 3, 5]
    for x in data:
        x[:, 2] = 0.7
        x[:, 4] = 0
    assert central_moments(data[0]).second[2] > 0  # the mean is rounded
    net = built('bn').float()
    found = recorded(net, data)['norm']
    assert found['constant_channels'] == 2
    means = np.stack([x[:, kept].mean((0, 2, 3)).numpy() for x in data])
    var = means.var(0, ddof=1)
    variance = torch.cat(data)[:, kept].numpy().var((0, 2, 3)) + var / 3
    assert found['mean_noise'] == pytest.approx(np.mean(var / variance), rel=1e-3)
    assert found['gamma'] == pytest.approx(net.norm.weight[kept].mean().item())
    assert found['decay'] > 0
    for x in data:
        x[:] = 0.1
    found = recorded(net, data)['norm']
    known = {'images': 4, 'values': 40, 'mean_law': 0.25, 'constant_channels': 6}
    assert found == known


def test_a_single_batch_or_nan_has_no_record():
    assert recorded(built('bn'), batches(4)) == {'norm': {}}
    data = batches(4, 4, 4)
    data[1][0, 0, 0, 0] = torch.nan
    assert recorded(built('bn'), data) == {'norm': {}}


@pytest.mark.parametrize('name', ['bn', 'portable'])
def test_empty_batches_do_not_count(name):
    want = recorded(built(name), batches(4, 4))['norm']
    net, empty = built(name), torch.zeros(0, 6, 3, 2).double()
    net.loss = lambda y: Net.loss(net, y) if len(y) else y.sum(1)  # a mean of none is NaN
    with_empty = recorded(net, [batches(4)[0], empty, batches(4, 4)[1]])
    assert with_empty['norm'] == pytest.approx(want)


def test_which_layers():
    class WithMore(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x.abs())

    layers = {name: make() for name, make in LAYERS.items()}
    others = [
        SN(4, using_bn=False),
        SN(4, frozen=True),
        SW(4),
        IterNorm(4),
        GW(16),
        MABN(4),
        CBN(4),
        EBN(4),
        IBN(4, ratio=1),
    ]
    others += [nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4, track_running_stats=True)]
    others += [WithMore(4), nn.BatchNorm2d(4).eval(), PortableSyncBN(4).eval()]
    net = nn.ModuleDict({**layers, 'others': nn.ModuleList(others)})
    assert list(layers_with_batch_noise(net)) == list(LAYERS)
