"""Outputs of the released SW, IterNorm and GW: training steps, then an evaluation, in float64."""

import pytest

from normplug.norms import GW, SW, IterNorm
from tests.cases import assert_same, run
from tests.test_golden import load

EXACT = 1e-11
LAYERS = {
    'sw2_2d': lambda: SW(8, momentum=0.1, num_pergroup=4),
    'sw2_tied_2d': lambda: SW(8, momentum=0.1, num_pergroup=4, tie_weight=True),
    'sw5_2d': lambda: SW(8, momentum=0.1, num_pergroup=4, sw_type=5, released=True),
    'sw2_default_n1': lambda: SW(32),
    'iternorm_two_groups': lambda: IterNorm(8, num_channels=4),
    'gw_as_many_groups_as_channels': lambda: GW(8, eps=1e-12),  # it forgets its eps
}


def part(golden, prefix, step=None):
    """What lies under a prefix, of a step."""
    found = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    return found if step is None else {name: value[step] for name, value in found.items()}


def released(results, layer):
    """In the shapes of our layer, and without what the release does not have."""
    shapes = {name: t.shape for name, t in layer.state_dict().items()}
    return {n: t.reshape(shapes.get(n.removeprefix('grad.'), t.shape)) for n, t in results.items()}


def assert_step(layer, golden, step, ranks=''):
    got = run(layer, golden[f'{ranks}x'][step], golden[f'{ranks}dy'][step])
    want = {name: golden[ranks + name][step] for name in ('y', 'dx')}
    want |= {f'grad.{name}': t for name, t in part(golden, f'{ranks}grad.', step).items()}
    want |= part(golden, 'after.', step)
    got.pop('num_batches_tracked', None)
    assert_same(got, released(want, layer), EXACT)


@pytest.mark.parametrize('name', LAYERS)
def test_layer(name):
    golden, layer = load(name), LAYERS[name]().double()
    layer.load_state_dict(part(golden, 'before.'), strict=True)
    for step in range(3):
        assert_step(layer, golden, step)
    got = run(layer.eval(), golden['x'][0], golden['dy'][0])
    want = {'y': golden['eval_y']}
    if 'eval_dx' in golden:  # the release crashes there
        want['dx'] = golden['eval_dx']
    want |= {f'grad.{name}': t for name, t in part(golden, 'eval_grad.').items()}
    assert_same({name: got[name] for name in want}, released(want, layer), EXACT)
