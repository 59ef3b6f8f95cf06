"""Every norm under ``torch.jit.script``: evaluation, saved and loaded."""

import io

import pytest
import torch
from torch import nn

from normplug.norms import BCN, BIN, EBN, FRN, GW, IBN, SN, SW, IterNorm, PortableSyncBN
from normplug.norms.linked import Linked
from normplug.norms.whitening import WhiteningNorm
from tests.cases import CASES, TOLERANCE, assert_same, built, linked, random_input

# torch's announcement that TorchScript gives way to torch.export
# Layers without a scripted form.
UNSCRIPTED = (WhiteningNorm, BIN, BCN, EBN, FRN)
SCRIPTED = [case for case in CASES if not isinstance(case.build(4), UNSCRIPTED)]
all_cases = pytest.mark.parametrize('case', SCRIPTED, ids=lambda case: case.name)

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')


def evaluating(case, channels, dtype=torch.float32):
    """The case's layer; without a link, which only training needs and no script takes."""
    layer = built(case, channels, dtype).eval()
    if isinstance(layer, Linked):
        layer.link = None
        layer._forward_hooks.clear()
        layer._forward_pre_hooks.clear()
    return layer


def scripted(layer):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(layer), file)
    file.seek(0)
    return torch.jit.load(file)


@all_cases
def test_a_saved_script_evaluates_as_the_layer(case):
    for channels, shapes in (
        (4, [(3, 4), (2, 4, 7), (2, 4, 5, 3), (1, 4, 1, 1), (2, 4, 3, 2, 5)]),
        (1, [(2, 1, 5, 7)]),
    ):
        layer = evaluating(case, channels)
        script = scripted(layer)
        for shape in shapes:
            x = random_input(shape, seed=3)
            assert_same({'y': script(x)}, {'y': layer(x)}, TOLERANCE[torch.float32])
        assert script(torch.zeros(0, channels, 7, 7)).shape == (0, channels, 7, 7)
        assert list(script.state_dict()) == list(layer.state_dict())


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
@all_cases
def test_other_dtypes(case, dtype):
    layer, x = evaluating(case, 4, dtype), random_input((2, 4, 5, 3), dtype)
    y = scripted(layer)(x)
    assert y.dtype == dtype
    assert_same({'y': y}, {'y': layer(x)}, TOLERANCE[dtype])


@all_cases
def test_what_a_script_loads_counts(case):
    """Ratios are made of the parameters when it runs, not when it was scripted."""
    layer = evaluating(case, 4)
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor.mul_(0)
    script = torch.jit.script(layer)
    layer.load_state_dict(state)
    script.load_state_dict(layer.state_dict())
    x = random_input((2, 4, 5, 3))
    assert_same({'y': script(x)}, {'y': layer(x)}, TOLERANCE[torch.float32])


@all_cases
def test_training_mode_is_refused_and_the_model_trains_on(case):
    layer, x = evaluating(case, 4).train(), random_input((2, 4, 5, 3))
    model = nn.Sequential(nn.Conv2d(4, 4, 1), layer)
    script = torch.jit.script(model)
    with pytest.raises(torch.jit.Error, match=r'training mode.*model\.eval\(\)'):
        script(x)
    want = model.eval()(x)
    assert_same({'y': script.eval()(x)}, {'y': want}, TOLERANCE[torch.float32])
    assert model[1] is layer
    if not isinstance(layer, Linked):  # which would have to be linked again
        model.train()(x).sum().backward()
        assert layer.weight.grad is not None


@pytest.mark.parametrize('build', [SN, IBN, PortableSyncBN])
def test_a_frozen_layer_evaluates_in_a_training_model(build):
    layer, x = build(4, frozen=True), random_input((2, 4, 5, 3))
    y = scripted(layer.train())(x)
    assert_same({'y': y}, {'y': layer(x)}, TOLERANCE[torch.float32])
    with torch.no_grad():
        frozen = torch.jit.freeze(torch.jit.script(layer.eval()))
    assert_same({'y': frozen(x)}, {'y': layer(x)}, TOLERANCE[torch.float32])


def test_wrong_channels_are_named():
    with pytest.raises(torch.jit.Error, match=r'takes \(N, 4\)'):
        torch.jit.script(SN(4).eval())(torch.zeros(2, 5, 3, 3))


def test_channels_last_is_kept():
    x = random_input((2, 4, 5, 3)).to(memory_format=torch.channels_last)
    y = torch.jit.script(SN(4).eval())(x)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_linked_model_says_what_to_do():
    with pytest.raises(ValueError, match=r'linked.*torch\.jit\.trace'):
        torch.jit.script(linked(4).eval())


def test_another_rule_is_not_scripted_as_that_of_its_base():
    class Shifted(SN):
        def rule(self, x):
            return super().rule(x)

    with pytest.raises(NotImplementedError, match=r'Shifted has a rule of its own.*jit\.trace'):
        torch.jit.script(nn.Sequential(Shifted(4)).eval())


@pytest.mark.parametrize('kind', [SW, IterNorm, GW, BIN, BCN, EBN, FRN])
def test_a_layer_without_scripted_form_is_refused_by_name(kind):
    with pytest.raises(NotImplementedError, match=f'{kind.__name__} has a rule .*jit.trace'):
        torch.jit.script(kind(4).eval())
