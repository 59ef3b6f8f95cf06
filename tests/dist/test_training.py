"""SSN and population statistics over ranks."""

import pytest

from tests.dist import training_scenarios as scenarios


@pytest.mark.slow
@pytest.mark.parametrize(('norm', 'accumulate'), [('SSN', 1), ('SSN', 2), ('SyncSSN', 1)])
def test_ssn_decides_alike_on_all_ranks(two, tmp_path, norm, accumulate):
    """DDP raises if a parameter takes no part: decided ratios still do."""
    first, second = two.run(scenarios.ssn, tmp_path / 'work', norm, accumulate)
    assert first == second
    for choice in first:
        assert sorted(choice) == [0, 0, 1]


@pytest.mark.slow
@pytest.mark.parametrize('norm', ['SN', 'SyncSSN'])
def test_averaged_model_with_population_statistics(two, tmp_path, norm):
    two.run(scenarios.averages, tmp_path / norm, norm)


@pytest.mark.slow
def test_population_of_two_ranks(two):
    two.run(scenarios.population)


@pytest.mark.slow
def test_population_of_three_ranks(three):
    three.run(scenarios.population)
