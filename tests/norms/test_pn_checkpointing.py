"""PN under activation checkpointing: a recomputation has what its forward normalized by."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug.norms import PN
from tests.cases import assert_same, random_input
from tests.norms.pn_cases import SHAPE, trained

both_modes = pytest.mark.parametrize('use_reentrant', [True, False])


@both_modes
@pytest.mark.parametrize('options', [{}, {'noise': 'both', 'samples': 2}], ids=str)
def test_a_recomputation_has_the_statistics_of_its_forward(options, use_reentrant):
    plain = trained(PN(3, momentum=0.5, **options))
    saving = copy.deepcopy(plain)
    for seed in range(2):
        x = random_input(SHAPE, torch.float64, seed)
        xs = [x.clone().requires_grad_() for _ in range(2)]
        torch.manual_seed(seed)
        plain(xs[0]).square().sum().backward()
        after = torch.get_rng_state()
        torch.manual_seed(seed)
        checkpoint(saving, xs[1], use_reentrant=use_reentrant).square().sum().backward()
        assert torch.equal(torch.get_rng_state(), after)
        torch.testing.assert_close(xs[1].grad, xs[0].grad, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    assert_same(saving.state_dict(), plain.state_dict(), 0)


@both_modes
def test_a_layer_shared_by_checkpointed_blocks_is_refused(use_reentrant):
    layer, x = trained(PN(3)), random_input(SHAPE, torch.float64).requires_grad_()
    y = checkpoint(layer, x, use_reentrant=use_reentrant)
    y = checkpoint(layer, y, use_reentrant=use_reentrant)
    with pytest.raises(ValueError, match=r"type='PN'.*share the layer.*with_cp=False"):
        y.sum().backward()


@both_modes
@pytest.mark.parametrize('grad', [True, False])
def test_another_forward_before_the_backward_pass_is_refused(use_reentrant, grad):
    """It moves the population, and with it what a recomputation would normalize by."""
    layer, x = trained(PN(3)), random_input(SHAPE, torch.float64).requires_grad_()
    y = checkpoint(layer, x, use_reentrant=use_reentrant)
    with torch.set_grad_enabled(grad):
        layer(2 * x)
    with pytest.raises(ValueError, match=r"type='PN'.*another forward in training mode"):
        y.sum().backward()


@both_modes
def test_forwards_before_the_last_step_are_forgotten(use_reentrant):
    layer, x = trained(PN(3)), random_input(SHAPE, torch.float64).requires_grad_()
    layer(x)  # of a loss that had no gradient
    with torch.no_grad():
        layer.weight.mul_(2)
    twin = copy.deepcopy(layer)
    for net in (layer, lambda x: checkpoint(twin, x, use_reentrant=use_reentrant)):
        net(x).square().sum().backward()
    torch.testing.assert_close(twin.weight.grad, layer.weight.grad)


class Dropping(nn.Sequential):
    """Draws twice: for the noise, and after it."""

    def __init__(self):
        super().__init__(trained(PN(3, noise='var', samples=2)), nn.Dropout(0.5))


@both_modes
def test_what_a_block_draws_after_the_noise_is_drawn_again(use_reentrant):
    block, grads = Dropping(), []
    own = copy.deepcopy(block.state_dict())
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=use_reentrant)):
        block.load_state_dict(own)
        torch.manual_seed(3)
        x = random_input(SHAPE, torch.float64).requires_grad_()
        run(x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


@both_modes
def test_noise_is_kept_where_the_random_state_is_not(use_reentrant):
    layer, grads = trained(PN(3, noise='both', samples=2)), []
    own = copy.deepcopy(layer.state_dict())
    for saves in (False, True):
        layer.load_state_dict(own)
        torch.manual_seed(3)
        x = random_input(SHAPE, torch.float64).requires_grad_()
        options = {'use_reentrant': use_reentrant, 'preserve_rng_state': False}
        y = checkpoint(layer, x, **options) if saves else layer(x)
        y.square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_what_is_kept_is_no_state(copied):
    layer, x = trained(PN(3)), random_input(SHAPE, torch.float64).requires_grad_()
    layer(x)
    twin = copied(layer)
    checkpoint(twin, x, use_reentrant=False).sum().backward()  # its first forward, and no second
    assert set(layer.state_dict()) == set(nn.BatchNorm2d(3).state_dict())
