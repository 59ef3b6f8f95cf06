"""KN where it cannot work: clear errors."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug.kalman import link_kalman
from normplug.norms.kn import KN, SyncKN
from tests.kalman.networks import CHAIN, build, conv, made

UNLINKED = r"type='KN'.*never linked to its predecessor, or is a copy.*KalmanLinkHook.*link_kalman"


@pytest.mark.parametrize('gain', [0, 1, -0.1, 1.5, float('nan'), True, None, 'auto'])
def test_gain(gain):
    with pytest.raises(ValueError, match=r"type='KN'.*gain must lie between 0 and 1"):
        KN(3, gain=gain)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(transition='dense'), 'transition must be one of conv, sample, linear'),
        (dict(state='prior'), "state must be 'posterior' or 'affine'"),
        (dict(limit=0), 'limit must be positive'),
        (dict(limit=-1.0), 'limit must be positive'),
        (dict(limit=float('nan')), 'limit must be positive'),
        (dict(limit='100'), 'limit must be positive'),
        (dict(virtual_batch_size=0), 'virtual_batch_size must be a positive integer'),
    ],
)
def test_other_options(options, message):
    with pytest.raises(ValueError, match=message):
        KN(3, **options)


def test_synchronized_layers_have_no_groups():
    with pytest.raises(ValueError, match="joins the batches of all ranks: use type='KN'"):
        SyncKN(3, virtual_batch_size=2)


def test_a_batch_that_does_not_divide():
    model, x = made(CHAIN, virtual_batch_size=2)
    with pytest.raises(ValueError, match='virtual_batch_size=2 does not divide the batch of 3'):
        model(x[:3])


def test_groups_of_other_sizes():
    model = build(CHAIN).double()
    model[1].virtual_batch_size = 2
    x = torch.randn(4, 3, 8, 8).double()
    link_kalman(model, lambda: model(x))
    with pytest.raises(ValueError, match='is not that of the layers before'):
        model(x)


def test_never_linked():
    model, x = build(CHAIN).double(), torch.randn(4, 3, 8, 8).double()
    with pytest.raises(ValueError, match=UNLINKED):
        model(x)
    assert model.eval()(x).isfinite().all()


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('make', [copy.deepcopy, pickled])
def test_copies_are_unlinked(make):
    model, x = made(CHAIN)
    twin = make(model)
    with pytest.raises(ValueError, match=UNLINKED):
        twin(x)
    torch.testing.assert_close(twin.eval()(x), model.eval()(x), rtol=0, atol=0)
    link_kalman(twin.train(), lambda: twin(x))
    torch.testing.assert_close(twin(x), model.train()(x), rtol=1e-12, atol=1e-12)
    # The copy's forwards forget the copy's states only, and the other way round.
    torch.testing.assert_close(model(x), twin(x), rtol=1e-12, atol=1e-12)


def test_copies_of_a_layer_are_unlinked():
    model, _ = made(CHAIN)
    for make in (copy.copy, copy.deepcopy, pickled):
        assert make(model[4]).link is None
    assert model[4].link is not None


def replaced(i, module):
    model, x = made(CHAIN)
    model[i] = module.double()
    return model, x


@pytest.mark.parametrize(
    ('i', 'module', 'error', 'message'),
    [
        (3, nn.Conv2d(4, 6, 3, 2, 1), RuntimeError, 'linked through 3, which was replaced since'),
        (1, nn.BatchNorm2d(4), RuntimeError, 'linked to 1, which has not run before it'),
        (1, KN(4), ValueError, UNLINKED),
        (4, KN(6), ValueError, UNLINKED),
        (4, nn.BatchNorm2d(6), RuntimeError, 'KN layer 7 is linked to 4, which has not run'),
    ],
)
def test_replaced_modules(i, module, error, message):
    model, x = replaced(i, module)
    with pytest.raises(error, match=message):
        model(x)
    assert model.eval()(x).isfinite().all()
    link_kalman(model.train(), lambda: model(x))
    assert model(x).isfinite().all()


def test_a_removed_convolution():
    model, x = made([*CHAIN, ('relu',), conv(6, 6), ('norm', 6)])
    model[6] = nn.Identity()
    with pytest.raises(RuntimeError, match='linked through 6, which was replaced since'):
        model(x)


class Checkpointed(nn.Module):
    """Some of the layers under checkpointing, where gradients are wanted."""

    def __init__(self, layers, part, use_reentrant):
        super().__init__()
        self.layers, self.part, self.use_reentrant = layers, part, use_reentrant

    def forward(self, x):
        if not torch.is_grad_enabled():
            return self.layers(x)
        x = self.layers[: self.part.start](x)
        x = checkpoint(self.layers[self.part], x, use_reentrant=self.use_reentrant)
        return self.layers[self.part.stop :](x)


@pytest.mark.parametrize('use_reentrant', [False, True])
@pytest.mark.parametrize('part', [slice(0, 3), slice(3, 6), slice(0, 8)], ids=str)
def test_checkpointed(part, use_reentrant):
    """The first layer of a chain too: its state would have no gradient, or be set again."""
    layers, x = made(CHAIN)
    model = Checkpointed(layers, part, use_reentrant)
    link_kalman(model, lambda: model(x))
    y = model(x.clone().requires_grad_())
    with pytest.raises(ValueError, match=r'activation checkpointing.*with_cp=False'):
        y.sum().backward()


@pytest.mark.parametrize('use_reentrant', [False, True])
def test_a_plain_batch_norm_may_be_checkpointed(use_reentrant):
    """A layer that none precedes or follows."""
    layer = KN(3).double()
    x = torch.randn(2, 3, 4, 4).double().requires_grad_()
    link_kalman(layer, lambda: layer(x))
    dy = torch.randn_like(x)
    layer(x).backward(dy)
    want, x.grad = x.grad, None
    checkpoint(layer, x, use_reentrant=use_reentrant).backward(dy)
    torch.testing.assert_close(x.grad, want, rtol=1e-12, atol=1e-12)
    assert layer.num_batches_tracked == 2


def test_with_cp_is_refused_when_linking():
    model = build(CHAIN)
    model.with_cp = True
    with pytest.raises(ValueError, match=r'with_cp=True runs its KN layers again.*with_cp=False'):
        link_kalman(model, lambda: None)


@pytest.mark.parametrize('group', [None, 2])
def test_a_layer_in_evaluation_hands_on_its_running_statistics(group):
    """As ``frozen_stages`` and ``norm_eval`` have it."""
    model, x = made(CHAIN, virtual_batch_size=group)
    first, second = model[1], model[4]
    nn.init.normal_(first.running_mean)
    first.eval()
    seen = []
    y = model(x)
    for mean in (first.running_mean.clone(), first.running_mean + 1):
        # The same output of the first layer, by a bias that makes up for its running mean.
        scale = first.weight.detach() * (first.running_var + first.eps).rsqrt()
        with torch.no_grad():
            first.bias += (mean - first.running_mean) * scale
            first.running_mean.copy_(mean)
        second.running_mean.zero_()
        seen.append(model(x))
        seen.append(second.running_mean.clone())
    torch.testing.assert_close(seen[0], y, rtol=1e-12, atol=1e-12)
    # But another prediction, of 0.9 in weight.
    assert (seen[3] - seen[1]).abs().max() > 1e-3


def test_ranks_do_not_sample_together():
    with pytest.raises(ValueError, match="transition='sample' draws another map on each rank"):
        SyncKN(4, transition='sample')
