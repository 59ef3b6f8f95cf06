"""SW, IterNorm and GW: what they reduce to, and what their arguments and inputs may be."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normplug.norms import GW, SW, IterNorm, SyncSW
from tests.cases import random_input, run

X = random_input((3, 8, 6, 5), torch.float64)


def whitened(x_b, iterations, eps=1e-5):
    """(B, d, L) by its own covariance, as the papers write it."""
    x_b = x_b - x_b.mean(2, keepdim=True)
    eye = torch.eye(x_b.shape[1], dtype=x_b.dtype)
    cov = x_b @ x_b.mT / x_b.shape[2] + eps * eye
    trace = cov.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    root = eye.expand_as(cov)
    for _ in range(iterations):
        root = (3 * root - root.matrix_power(3) @ cov / trace) / 2
    return root @ x_b / trace.sqrt()


@pytest.mark.parametrize('iterations', [1, 2, 5, 8])
def test_iternorm_is_the_papers_formula(iterations):
    layer = IterNorm(8, num_groups=2, T=iterations).double()
    x_b = X.transpose(0, 1).reshape(2, 4, -1)
    want = whitened(x_b, iterations).reshape(8, 3, 6, 5).transpose(0, 1)
    torch.testing.assert_close(layer(X), want)


@pytest.mark.parametrize('groups', [2, 4, 8])
def test_gw_is_the_papers_formula(groups):
    """Channels of a group, which follow each other, are samples."""
    layer = GW(8, num_groups=groups).double()
    want = whitened(X.reshape(3, groups, -1), 5).view_as(X)
    torch.testing.assert_close(layer(X), want)
    same = GW(8, num_channels=8 // groups).double()
    torch.testing.assert_close(same(X), layer(X))
    torch.testing.assert_close(layer.eval()(X), want)


def one_hot(layer, source, mean_source=None):
    with torch.no_grad():
        for name, of in (('mean', mean_source or source), ('var', source)):
            logits = getattr(layer, f'sw_{name}_weight')
            logits.fill_(-50).view(-1)[layer.normalizers.index(of)] = 50
    return layer


@pytest.mark.parametrize('sw_type', [2, 3, 5])
def test_sw_of_one_source_is_that_source(sw_type):
    layer = SW(8, num_pergroup=4, sw_type=sw_type).double()
    blocks = X.unflatten(1, (2, 4))
    of_image = whitened(blocks.flatten(0, 1).flatten(2), 5).view_as(X)
    of_batch = whitened(blocks.transpose(0, 2).transpose(0, 1).flatten(2), 5)
    of_batch = of_batch.view(2, 4, 3, 6, 5).transpose(0, 1).transpose(0, 2).reshape(X.shape)
    torch.testing.assert_close(one_hot(layer, 'bw')(X), of_batch)
    torch.testing.assert_close(one_hot(layer, 'iw')(X), of_image)


def test_sw_of_layer_norm():
    """Enough iterations invert a multiple of the identity in full."""
    layer = one_hot(SW(8, num_pergroup=4, sw_type=3, T=10).double(), 'ln')
    torch.testing.assert_close(layer(X), F.layer_norm(X, X.shape[1:]))


def test_sw_of_single_channels_is_batch_and_instance_norm():
    layer = SW(8, num_pergroup=1, sw_type=5).double()
    by_batch, by_image = F.batch_norm(X, None, None, training=True), F.instance_norm(X)
    for source, want in {'bw': by_batch, 'bn': by_batch, 'iw': by_image, 'in': by_image}.items():
        torch.testing.assert_close(one_hot(layer, source)(X), want)


def test_iternorm_of_single_channels_is_batch_norm():
    layer, native = IterNorm(8, num_channels=1).double(), nn.BatchNorm2d(8).double()
    torch.testing.assert_close(layer(X), native(X))


def test_sw_5_gives_each_source_its_ratio():
    """The released code gives BN's and IN's covariances the ratios of BW and IW."""
    ours, theirs = (SW(8, num_pergroup=4, sw_type=5, released=r).double() for r in (False, True))
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-3, atol=1e-3)  # equal ratios
    for layer in (ours, theirs):
        one_hot(layer, 'bn', 'ln')
    assert theirs(X).abs().max() > 100  # no covariance at all
    assert ours(X).abs().max() < 10


def test_one_image_is_whitened_alike_by_batch_and_instance():
    layer, x = SW(8, num_pergroup=4).double(), X[:1]
    torch.testing.assert_close(one_hot(layer, 'bw')(x), one_hot(layer, 'iw')(x))


@pytest.mark.parametrize('build', [SW, IterNorm, GW])
@pytest.mark.parametrize('value', [0.0, 7.0, 1e4])
def test_a_constant_region_is_finite(build, value):
    """GW's release forgets its eps: NaN there."""
    layer = build(8)
    x = random_input((2, 8, 4, 4))
    x[1] = value
    result = run(layer, x, random_input(x.shape, seed=2))
    assert all(torch.isfinite(t).all() for t in result.values())
    if build is GW:
        torch.testing.assert_close(result['y'][1], torch.zeros(8, 4, 4))


@pytest.mark.parametrize('build', [SW, IterNorm, GW])
def test_many_iterations_in_float32(build):
    """As the paper writes them, 8 iterations are off by 1e-3 here, and 12 by anything."""
    x = random_input((2, 64, 7, 7)) * torch.logspace(0, -2, 64).view(-1, 1, 1)
    x, dy = x + x.flip(1), random_input(x.shape, seed=2)
    for iterations in (8, 12):
        single = run(build(64, T=iterations), x, dy)
        double = run(build(64, T=iterations).double(), x.double(), dy.double())
        for name in ('y', 'dx'):
            error = (single[name] - double[name]).abs().max() / double[name].abs().max()
            assert error < 1e-4, (iterations, name, error)


@pytest.mark.parametrize('build', [SW, IterNorm, GW])
@pytest.mark.parametrize('shape', [(2, 32, 2, 2), (1, 32, 2, 2), (2, 32, 1, 1), (3, 32)])
def test_more_channels_than_samples(build, shape):
    """Directions without a spread grow by no more than 1.5 to the power of T over √trace."""
    layer, x = build(32), random_input(shape)
    for training in (True, False):
        result = run(layer.train(training), x, random_input(shape, seed=2))
        assert all(torch.isfinite(t).all() for t in result.values())
    if build is GW and x[0].numel() == 32:  # one sample of each group: no spread at all
        torch.testing.assert_close(result['y'], torch.zeros(shape))


def test_gw_of_one_group_is_layer_norm():
    """And of one channel a group, each image is whitened like a batch of it alone."""
    layer = GW(8, num_groups=1).double()
    torch.testing.assert_close(layer(X), F.layer_norm(X, X.shape[1:]))
    single = torch.cat([IterNorm(8).double()(image) for image in X.split(1)])
    torch.testing.assert_close(GW(8, num_channels=1).double()(X), single)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_nan_in_an_image_stays_in_it(value):
    """With GW; batch statistics carry it to all images, as a batch norm does."""
    spoiled = X.clone()
    spoiled[1, 2, 3, 4] = value
    dy = random_input(X.shape, torch.float64, seed=2)
    layer = GW(8, num_groups=4).double()
    got, want = run(layer, spoiled, dy), run(layer, X, dy)
    for name in ('y', 'dx'):
        assert torch.isnan(got[name][1]).all()
        assert torch.equal(got[name][::2], want[name][::2])
    for build in (SW, IterNorm):
        assert torch.isnan(build(8).double()(spoiled)).all()
        assert torch.isfinite(build(8).double().eval()(spoiled)[::2]).all()


@pytest.mark.parametrize(
    ('build', 'options', 'message'),
    [
        (
            SW,
            {'num_pergroup': 5},
            'num_pergroup=5 does not divide the 24 channels: choose a number that divides the '
            'channels of every layer that the norm_cfg is for (here 4, 3, 2, 1)',
        ),
        (SW, {}, 'num_pergroup=16 does not divide the 24 channels'),
        (SW, {'num_pergroup': 0}, 'num_pergroup must be a positive integer, got 0'),
        (SW, {'num_pergroup': 2.0}, 'num_pergroup must be a positive integer, got 2.0'),
        (SW, {'num_pergroup': 8, 'sw_type': 4}, 'sw_type must be one of 2, 3, 5, got 4'),
        (SyncSW, {'num_pergroup': 8, 'sw_type': 4}, 'sw_type must be one of 2, 3, 5, got 4'),
        (SW, {'num_pergroup': 8, 'sw_type': [2]}, 'sw_type must be one of 2, 3, 5'),
        (
            SW,
            {'num_pergroup': 8, 'T': 0},
            "T, the number of Newton's iterations, must be an integer from 1 to 16",
        ),
        (IterNorm, {'num_channels': 7}, 'num_channels=7 does not divide the 24 channels'),
        (IterNorm, {'num_groups': 7}, 'num_groups=7 does not divide the 24 channels'),
        (IterNorm, {'num_groups': 2, 'num_channels': 12}, 'num_channels and num_groups both'),
        (
            IterNorm,
            {'T': 2.5},
            "T, the number of Newton's iterations, must be an integer from 1 to 16",
        ),
        (GW, {'num_groups': 5}, 'num_groups=5 does not divide the 24 channels'),
        (GW, {'num_channels': 5}, 'num_channels=5 does not divide the 24 channels'),
        (GW, {'num_channels': -1}, 'num_channels must be a positive integer, got -1'),
        (GW, {'T': -1}, "T, the number of Newton's iterations, must be an integer from 1 to 16"),
        (GW, {'eps': 0}, 'eps must be a positive number'),
    ],
)
def test_wrong_arguments_are_named(build, options, message):
    text = f"norm_cfg=dict(type='{build.__name__}'): {message}"
    with pytest.raises(ValueError, match=re.escape(text)):
        build(24, **options)


def test_fewer_channels_than_a_block_are_one_block():
    assert SW(8).running_cov.shape == (1, 8, 8)
    assert IterNorm(8).running_wm.shape == (1, 8, 8)
    assert IterNorm(128).running_wm.shape == (2, 64, 64)
    assert 'num_groups=8' in repr(GW(8))


def test_running_matrices():
    """SW averages covariances, IterNorm whitening matrices; NaN moves neither."""
    sw = SW(8, num_pergroup=4, momentum=0.3).double()
    iternorm = IterNorm(8, num_channels=4, momentum=0.3).double()
    covs, roots = torch.eye(4).double().expand(2, 4, 4), torch.eye(4).double().expand(2, 4, 4)
    for seed in range(3):
        x = random_input((3, 8, 6, 5), torch.float64, seed)
        x_b = x.transpose(0, 1).reshape(2, 4, -1)
        cov = torch.stack([torch.cov(block, correction=0) for block in x_b])
        covs = covs.lerp(cov, 0.3)
        root = whitened(x_b, 5) @ torch.linalg.pinv(x_b - x_b.mean(2, keepdim=True))
        roots = roots.lerp(root, 0.3)
        sw(x)
        iternorm(x)
        spoiled = x.clone()
        spoiled[0, 0, 0, 0] = float('nan')
        sw(spoiled)
        iternorm(spoiled)
    torch.testing.assert_close(sw.running_cov, covs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(iternorm.running_wm, roots, rtol=1e-6, atol=1e-6)
    assert sw.num_batches_tracked == iternorm.num_batches_tracked == 3


@pytest.mark.parametrize('build', [SW, IterNorm])
def test_frozen_uses_the_running_statistics_and_can_be_differentiated(build):
    """Where the released SyncSW gives the gradient of batch statistics, and IterNorm crashes."""
    layer, twin = build(8).double(), build(8, frozen=True).double()
    layer(X)
    twin.load_state_dict(layer.state_dict())
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    twin.train()(x).sigmoid().sum().backward()
    layer.eval()(y).sigmoid().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert not list(twin.parameters())
    assert twin.num_batches_tracked == 1


def test_ratios():
    layer = one_hot(SW(8, sw_type=5), 'in', 'ln')
    assert layer.normalizers == ('bw', 'iw', 'bn', 'in', 'ln')
    mean, cov = layer.ratios()
    assert mean.argmax() == 4
    assert cov.argmax() == 3
    tied = SW(8, tie_weight=True)
    assert torch.equal(*tied.ratios())
    assert set(tied.own_names()) == {'running_cov', 'sw_mean_weight'}


def test_a_checkpoint_of_a_batch_norm_warns():
    with pytest.warns(UserWarning, match='SW layers are loaded from the checkpoint of another'):
        SW(8).load_state_dict(nn.BatchNorm2d(8).state_dict(), strict=False)


def test_many_iterations_at_a_low_rank_are_finite():
    """In float32 the recurrence is not; beyond 8 iterations it is float64."""
    x = 10 * random_input((4, 64, 1, 1))
    for iterations in (12, 16):
        y = GW(64, num_groups=16, T=iterations)(x)
        exact = GW(64, num_groups=16, T=iterations).double()(x.double())
        torch.testing.assert_close(y.double(), exact, rtol=0.01, atol=0.01)


def test_tied_ratios_become_two_vectors(recwarn):
    tied, layer = (SW(8, num_pergroup=4, tie_weight=tie).double() for tie in (True, False))
    with torch.no_grad():
        tied.sw_mean_weight.copy_(torch.tensor([0.3, -0.4]))
    layer.load_state_dict(tied.state_dict())
    torch.testing.assert_close(layer(X), tied(X))
    assert not recwarn.list


def test_iternorm_of_vectors_keeps_no_matrix_of_each():
    layer, kept = IterNorm(64), []
    x = random_input((256, 64)).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    assert sum(t.untyped_storage().nbytes() for t in kept) < 8 * x.nbytes
