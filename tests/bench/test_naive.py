"""The yardsticks compute what the norms compute."""

import pytest
import torch

from normplug.bench.contenders import LAYERS, NAIVE
from tests.cases import assert_same, random_input, run

OF = {name: name.removeprefix('naive-').replace('naive', 'SN') for name in NAIVE}
SHAPE = (3, 128, 8, 9)  # two blocks of IterNorm; two channels in each group of GW


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('name', NAIVE)
def test_the_naive_layer_is_the_norm(name, training):
    ours, naive = (LAYERS[of](SHAPE[1]).double() for of in (OF[name], name))
    with torch.no_grad():
        for key, parameter in naive.named_parameters():
            parameter.normal_()
            ours.get_parameter(key).copy_(parameter)
    for seed in (1, 2):  # the running statistics that evaluation uses
        x = random_input(SHAPE, torch.float64, seed)
        for layer in (ours, naive):
            layer(x)
    dy = torch.randn(SHAPE, dtype=torch.float64)
    want = run(ours.train(training), x, dy)
    want.pop('num_batches_tracked', None)
    assert_same(run(naive.train(training), x, dy), want, 1e-11)


def test_it_keeps_the_dtype():
    x = random_input(SHAPE, torch.bfloat16)
    assert LAYERS['naive'](SHAPE[1])(x).dtype == torch.bfloat16
