"""EBN against its formula written out, in training and in evaluation."""

import pytest
import torch

from normplug.norms import EBN
from tests.cases import assert_same, by_formula, random_input, run
from tests.norms.pn_cases import EXACT, SHAPE, by_channel, trained


def transcribed(layer, x):
    if layer.training:
        mean, values = x.mean((0, 2, 3)), x.flatten()
        var = (values - values.mean()).square().mean()
    else:
        mean = layer.running_mean
        var = layer.running_var.mean() + mean.var(unbiased=False)
    y = (x - by_channel(mean)) / (var + layer.eps).sqrt()
    return by_channel(layer.weight) * y + by_channel(layer.bias)


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_the_formula(training):
    layer = trained(EBN(3)).train(training)
    x, dy = (random_input(SHAPE, torch.float64, seed) for seed in (0, 5))
    want = by_formula(layer, transcribed, x, dy)
    got = run(layer, x, dy)
    assert_same({name: got[name] for name in want}, want, EXACT)
