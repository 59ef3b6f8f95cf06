"""Contract, point 7: a block that is recomputed in backward updates its statistics once."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug import SN
from normplug.running import in_recomputation
from tests.cases import all_cases, built
from tests.mm.norm_layers import (
    buffers_of,
    has_counted,
    image,
    own_layers,
    randomize,
    resnet,
    two_types,
)

both_modes = pytest.mark.parametrize('use_reentrant', [True, False])


def test_in_recomputation_is_false_outside_and_in_a_forward():
    assert not in_recomputation()
    with torch.no_grad():
        assert not in_recomputation()


@both_modes
def test_in_recomputation_is_true_in_the_second_run_only(use_reentrant):
    seen = []

    def block(x):
        seen.append((in_recomputation(), torch.is_grad_enabled()))
        return x.exp()

    x = torch.ones(3, requires_grad=True)
    checkpoint(block, x, use_reentrant=use_reentrant).sum().backward()
    assert [recomputing for recomputing, _ in seen] == [False, True]
    # Why is_grad_enabled cannot tell: in one mode it is True in both runs.
    assert [grad for _, grad in seen] == [not use_reentrant, True]
    assert not in_recomputation()


def gradients(net):
    return {name: p.grad for name, p in net.named_parameters()}


def assert_same(actual, expected):
    """Equal in float64, but for the order in which autograd sums up branches."""
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def step(net):
    """A forward and backward; gradients and buffers after it."""
    outputs = net(image(2).double())
    sum((y * (1 + y)).mean() for y in outputs).backward()
    return gradients(net), buffers_of(net)


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@two_types
def test_resnet_with_cp(norm_type, scope):
    options = {'norm_eval': False, 'out_indices': (0, 1, 2, 3)}
    plain = randomize(resnet({'type': norm_type}, scope, **options))
    saving = resnet({'type': norm_type}, scope, with_cp=True, **options)
    plain.double()
    saving.double().train()
    saving.load_state_dict(plain.state_dict())
    runs = []
    saving.layer3[0].conv1.register_forward_hook(lambda *_: runs.append(in_recomputation()))

    plain_gradients, plain_buffers = step(plain)
    saving_gradients, saving_buffers = step(saving)
    assert runs == [False, True]  # the block was recomputed
    assert_same(saving_gradients, plain_gradients)
    assert_same(saving_buffers, plain_buffers)
    for name, layer in own_layers(saving).items():
        assert has_counted(layer, 1), name


@both_modes
@all_cases
def test_a_checkpointed_block(case, use_reentrant):
    def block():
        return nn.Sequential(nn.Conv2d(3, 4, 3), built(case, 4), nn.ReLU()).double().train()

    plain, saving = block(), block()
    saving.load_state_dict(plain.state_dict())
    for _ in range(2):  # the second step starts from what the first recorded
        x = image(2, 9).double().requires_grad_()
        plain(x).square().sum().backward()
        x = image(2, 9).double().requires_grad_()
        checkpoint(saving, x, use_reentrant=use_reentrant).square().sum().backward()
    assert_same(gradients(saving), gradients(plain))
    assert_same(buffers_of(saving), buffers_of(plain))


@both_modes
def test_nested_checkpoints_update_once(use_reentrant):
    layer = SN(4).train()

    def inner(x):
        return checkpoint(layer, x, use_reentrant=use_reentrant)

    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    checkpoint(inner, x, use_reentrant=use_reentrant).square().sum().backward()
    assert layer.num_batches_tracked == 1


@both_modes
def test_a_vector_input_before_an_inplace_relu(use_reentrant):
    """The output is no view, which a reentrant checkpoint could not have changed in place."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(5, 4), SN(4))
    x = torch.randn(6, 5, requires_grad=True)
    y = checkpoint(block, x, use_reentrant=use_reentrant)
    torch.relu_(y).sum().backward()
    assert block[0].weight.grad.abs().max() > 0
