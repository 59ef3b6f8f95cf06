"""Kalman Normalization over two gloo processes."""

import pytest

from tests.dist import kalman_scenarios as scenarios

OPTIONS = {
    'default': {},
    'learned gain': {'gain': 'learned'},
    'linear': {'transition': 'linear', 'gain': 'learned', 'limit': float('inf')},
    'affine': {'state': 'affine'},
    'guarded': {'limit': 1e-9},
}
all_options = pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)


@pytest.mark.parametrize('split', [(2, 1), (3, 0), (0, 3)], ids=str)
@all_options
def test_two_ranks_equal_one_process(two, options, split):
    two.run(scenarios.whole_batch, split, options)


@all_options
def test_all_ranks_empty(two, options):
    two.run(scenarios.all_ranks_empty, options)


@all_options
def test_data_parallel(two, options):
    two.run(scenarios.distributed_data_parallel, options)


@pytest.mark.parametrize('sizes', [(2, 2), (2, 0)], ids=str)
@all_options
def test_statistics_of_each_rank(two, options, sizes):
    two.run(scenarios.local_statistics, options, sizes)
