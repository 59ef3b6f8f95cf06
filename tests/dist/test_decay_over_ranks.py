"""Gamma decay over ranks."""

import pytest
import torch

from tests.dist import decay_scenarios as scenarios


@pytest.mark.parametrize('sync', [False, True])
@pytest.mark.parametrize('split', [(2, 2), (1, 4)], ids=str)
def test_two_ranks_are_one_process_with_all_images(two, split, sync):
    want = scenarios.alone(sum(split), sync)
    for found in two.run(scenarios.decay, split, sync):
        for got, expected in zip(found, want, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)
