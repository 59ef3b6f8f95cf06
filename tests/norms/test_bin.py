"""BIN against torch's own layers and the released layer's outputs."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from normplug.norms.bin import BIN
from tests.cases import assert_same, random_input, run
from tests.test_golden import load


def gated(logit):
    layer = BIN(4).double()
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
        layer.gate_logit.copy_(logit)
    return layer


def both(x):
    by_batch = F.batch_norm(x, None, None, training=True)
    return by_batch, F.instance_norm(x)


def test_gate_mixes_the_two_outputs():
    layer, x = gated(torch.randn(4)), random_input((3, 4, 5, 6), torch.float64)
    by_batch, by_instance = both(x)
    parts = (layer.gate_logit.sigmoid(), layer.weight, layer.bias)
    gate, weight, bias = (part.view(-1, 1, 1) for part in parts)
    want = weight * (gate * by_batch + (1 - gate) * by_instance) + bias
    torch.testing.assert_close(layer(x), want)


def test_saturated_gates_are_batch_and_instance_norm():
    x = random_input((3, 4, 5, 6), torch.float64)
    for logit, want in zip((50.0, -50.0), both(x), strict=True):
        layer = BIN(4).double()
        torch.nn.init.constant_(layer.gate_logit, logit)
        torch.testing.assert_close(layer(x), want)


def test_gradients():
    layer = gated(torch.randn(4))
    x = random_input((2, 4, 3, 2), torch.float64).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert gradcheck(function, (x, *values))


def test_released_layer():
    """Its gate is a share, ours the logit of one: dL/dlogit = dL/dgate · gate · (1 − gate)."""
    golden, layer = load('bin_2d'), BIN(8).double()
    gate = golden['before.gate']
    layer.load_state_dict(
        {k.removeprefix('before.'): v for k, v in golden.items() if k.startswith('before.')}
    )

    def assert_step(got, **want):
        want['grad.gate_logit'] = want.pop('grad.gate') * gate * (1 - gate)
        assert_same({name: got[name] for name in want}, want, 1e-12)

    names = [k for k in golden if k.startswith(('y', 'dx', 'grad.', 'after.'))]
    for step in range(3):
        want = {name.removeprefix('after.'): golden[name][step] for name in names}
        del want['num_batches_tracked']  # it does not count
        assert_step(run(layer, golden['x'][step], golden['dy'][step]), **want)
    want = {k.removeprefix('eval_'): v for k, v in golden.items() if k.startswith('eval_')}
    assert_step(run(layer.eval(), golden['x'][0], golden['dy'][0]), **want)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_released_gates_at_their_ends_stay_finite(dtype):
    layer = BIN(2)
    state = {**layer.state_dict(), 'gate': torch.tensor([0.0, 1.0], dtype=dtype)}
    del state['gate_logit']
    layer.load_state_dict(state)
    ends = torch.tensor([-13.8155, 13.8155])  # logits of 1e-6 and 1 - 1e-6
    torch.testing.assert_close(layer.gate_logit.detach(), ends, rtol=1e-4, atol=0)
