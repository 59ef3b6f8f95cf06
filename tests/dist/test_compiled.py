"""The compiled backend over two gloo processes."""

import pytest

from tests.dist import compiled_scenarios as scenarios


@pytest.mark.slow
@pytest.mark.parametrize('static_graph', [False, True])
@pytest.mark.parametrize('norm', scenarios.NORMS)
def test_trains_like_eager(two, norm, static_graph):
    two.run(scenarios.load)
    two.run(scenarios.compiled, norm)
    two.run(scenarios.same_training, norm, static_graph)


@pytest.mark.slow
def test_a_rank_without_samples(two):
    two.run(scenarios.load)
    two.run(scenarios.a_rank_without_samples)
