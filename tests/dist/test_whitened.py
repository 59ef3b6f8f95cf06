"""Whitened layers over ranks."""

import pytest

from tests.dist import whitened_scenarios as scenarios


@pytest.mark.parametrize('split', [(2, 3), (4, 0)], ids=str)
def test_coordinates_of_all_ranks(two, split):
    two.run(scenarios.coordinates, split)


def test_coordinates_of_three_ranks(three):
    three.run(scenarios.coordinates, (1, 0, 4))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['PreGWNNConv', 'EigenConv'])
def test_training(two, tmp_path, kind):
    two.run(scenarios.training, tmp_path / 'work', kind)
