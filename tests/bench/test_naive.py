"""The yardstick computes what SN computes."""

import pytest
import torch

from normplug import SN
from normplug.bench.naive import NaiveSN
from tests.cases import assert_same, random_input, run

SHAPE = (3, 5, 4, 6)


def pair():
    ours, naive = SN(SHAPE[1]).double(), NaiveSN(SHAPE[1]).double()
    with torch.no_grad():
        for name, parameter in naive.named_parameters():
            parameter.normal_()
            ours.get_parameter(name).copy_(parameter)
    return ours, naive


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_the_naive_layer_is_sn(training):
    ours, naive = pair()
    for seed in (1, 2):  # the running statistics that evaluation uses
        x = random_input(SHAPE, torch.float64, seed)
        for layer in (ours, naive):
            layer(x)
    dy = torch.randn(SHAPE, dtype=torch.float64)
    want = run(ours.train(training), x, dy)
    del want['num_batches_tracked']
    assert_same(run(naive.train(training), x, dy), want, 1e-12)


def test_it_keeps_the_dtype():
    x = random_input(SHAPE, torch.bfloat16)
    assert NaiveSN(SHAPE[1])(x).dtype == torch.bfloat16
