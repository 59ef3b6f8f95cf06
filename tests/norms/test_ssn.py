"""What only SSN does; the contract is tested for it elsewhere."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from normplug.norms import SN, SSN
from normplug.norms.ssn import set_radius
from normplug.sparsestmax import sparsestmax
from tests.cases import TOLERANCE, assert_same, random_input, run, ssn


def with_logits(*logits, build=SSN, channels=4):
    layer = build(channels).double()
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
        layer.mean_weight.copy_(torch.tensor(logits[0]))
        layer.var_weight.copy_(torch.tensor(logits[-1]))
    return layer


def both_passes(layer, x):
    return run(layer, x, random_input(x.shape, x.dtype, seed=5))


def test_ratios_are_those_of_sparsestmax():
    layer = with_logits((1.0, 0.8, 0.7), (0.2, 0.1, 0.4))
    set_radius(layer, 0.5)
    for ratios, logits in zip(layer.ratios(), (layer.mean_weight, layer.var_weight), strict=True):
        torch.testing.assert_close(ratios, sparsestmax(logits, layer.radius))


def test_sn_with_the_same_ratios_is_the_same():
    """Radius 0, logits on the simplex: sparsemax leaves them as they are."""
    ratios = (0.2, 0.5, 0.3), (0.6, 0.3, 0.1)
    sparse = with_logits(*ratios)
    soft = with_logits(*(torch.tensor(r).log().tolist() for r in ratios), build=SN)
    soft.load_state_dict({k: v for k, v in sparse.state_dict().items() if k == 'weight'}, False)
    with torch.no_grad():
        soft.bias.copy_(sparse.bias)
    x = random_input((3, 4, 5, 6), torch.float64)
    got, want = both_passes(sparse, x), both_passes(soft, x)
    for name in ('y', 'dx', 'grad.weight', 'running_var'):
        torch.testing.assert_close(got[name], want[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ('index', 'native'),
    [
        (0, nn.InstanceNorm2d(4, affine=True)),
        (1, nn.GroupNorm(1, 4)),
        (2, nn.BatchNorm2d(4)),
    ],
)
def test_a_decided_layer_is_the_chosen_normalizer(index, native):
    logits = [0.0, 0.0, 0.0]
    logits[index] = 0.1
    layer = with_logits(logits)
    set_radius(layer, 0.9)
    assert layer.mean_choice.argmax() == layer.var_choice.argmax() == index
    native = native.double()
    native.load_state_dict({'weight': layer.weight, 'bias': layer.bias}, strict=False)
    x = random_input((3, 4, 5, 6), torch.float64)
    got, want = both_passes(layer, x), both_passes(native, x)
    keys = ('y', 'dx', 'grad.weight', 'grad.bias')
    assert_same({k: got[k] for k in keys}, {k: want[k] for k in keys}, TOLERANCE[torch.float64])
    for name in ('grad.mean_weight', 'grad.var_weight'):
        assert got[name].count_nonzero() == 0  # a gradient of zero, not of None


def test_gradients():
    layer = with_logits((0.9, 0.8, 0.6), (0.3, 0.5, 0.4))
    set_radius(layer, 0.3)
    x = random_input((2, 4, 3, 2), torch.float64).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert gradcheck(function, (x, *values))


def test_a_choice_outlives_its_logits():
    layer = with_logits((0.5, 0.4, 0.1))
    set_radius(layer, 0.9)
    with torch.no_grad():  # as momentum in the optimizer would
        layer.mean_weight.copy_(torch.tensor((0.0, 9.0, 0.0)))
    set_radius(layer, 1.0)
    assert layer.ratios()[0].tolist() == [1, 0, 0]


def test_mean_and_variance_decide_apart():
    layer = with_logits((3.0, 0.0, 0.0), (0.5, 0.45, 0.4))
    set_radius(layer, 0.3)
    assert layer.mean_choice.tolist() == [1, 0, 0]
    assert layer.var_choice.tolist() == [0, 0, 0]
    assert (layer.ratios()[1] > 0).all()


def test_set_radius_reaches_every_layer_but_frozen_ones():
    model = nn.Sequential(SSN(4), nn.Sequential(SSN(6, using_bn=False)), SSN(4, frozen=True), SN(4))
    set_radius(model, 0.4)
    radii = [layer.radius.item() for layer in model.modules() if isinstance(layer, SSN)]
    assert radii == pytest.approx([0.4, 0.4, 0])


@pytest.mark.parametrize('radius', [-0.1, 1.5, float('nan')])
def test_wrong_radius(radius):
    with pytest.raises(ValueError, match=r'radius of SSN must lie in \[0, 1\]'):
        set_radius(SSN(4), radius)


def test_state_goes_on_after_loading():
    layer = with_logits((0.9, 0.8, 0.6), (3.0, 0.0, 0.0))
    set_radius(layer, 0.5)
    twin = SSN(4).double()
    twin.load_state_dict(layer.state_dict(), strict=True)
    x = random_input((3, 4, 5, 6), torch.float64)
    assert_same(both_passes(twin, x), both_passes(layer, x), 0)


def test_reset_ratios():
    layer = ssn(4, 0.9, mean_choice=[0, 0, 1], var_choice=[1, 0, 0])
    affine = copy.deepcopy(layer.weight)
    layer.reset_ratios()
    for ratios in layer.ratios():
        torch.testing.assert_close(ratios, torch.full_like(ratios, 1 / 3))
    assert layer.radius == 0
    assert torch.equal(layer.weight, affine)


def test_released_flags_become_choices():
    state = SSN(4).state_dict()
    del state['mean_choice'], state['var_choice']
    state['mean_weight'] = torch.tensor([0.0, 1.0, 0.0])
    state |= {'mean_fixed': torch.ones(1), 'var_fixed': torch.zeros(1), 'radius': torch.ones(1)}
    layer = SSN(4)
    layer.load_state_dict(state, strict=True)
    assert layer.mean_choice.tolist() == [0, 1, 0]
    assert layer.var_choice.tolist() == [0, 0, 0]
    assert layer.radius == 1


def test_training_ends_one_hot():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), SSN(8), nn.ReLU(), nn.Conv2d(8, 8, 3), SSN(8))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, target = random_input((4, 3, 10, 10)), random_input((4, 8, 6, 6), seed=2)
    for step in range(20):
        set_radius(net, step / 19)
        optimizer.zero_grad()
        (net(x) - target).square().mean().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        optimizer.step()
    for layer in (net[1], net[4]):
        assert layer.mean_choice.sum() == layer.var_choice.sum() == 1


def test_the_radius_moves_in_a_compiled_layer_without_recompilation():
    """Undecided, decided on the way, and decided: one graph."""
    torch.compiler.reset()
    layer = with_logits((1.2, 1.0, 0.9), (0.2, 0.0, 0.6))
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, fullgraph=True, backend='aot_eager')
    x = random_input((3, 4, 5, 6), torch.float64)
    set_radius(twin, 0.0)
    compiled(x).square().sum().backward()
    with torch.compiler.set_stance('fail_on_recompile'):
        for radius in (0.0, 0.3, 0.6, 0.79, 0.9, 1.0):
            for model in (layer, twin):
                model.zero_grad()
                set_radius(model, radius)
            y, y_twin = layer(x), compiled(x)
            y.pow(3).sum().backward()
            y_twin.pow(3).sum().backward()
            torch.testing.assert_close(y_twin, y, rtol=1e-9, atol=1e-9)
            for name, parameter in layer.named_parameters():
                grad = twin.get_parameter(name).grad
                torch.testing.assert_close(grad, parameter.grad, rtol=1e-9, atol=1e-9, msg=name)
    assert layer.mean_choice.sum() == layer.var_choice.sum() == 1
