"""Running statistics that ranks collected separately become one."""

import copy

import pytest

from normplug.dist import synchronize_running_stats
from tests.cases import assert_same
from tests.dist import running_stats_scenarios as scenarios


def test_without_a_process_group_nothing_changes():
    model = scenarios.model_of(0)
    before = copy.deepcopy(model.state_dict())
    synchronize_running_stats(model)
    assert_same(model.state_dict(), before, 0)


@pytest.mark.parametrize(
    'scenario',
    [
        *('merged', 'population_of_pn', 'noise_of_each_rank'),
        *('history_of_rank_0', 'windows_of_all_ranks'),
    ],
)
def test_two_ranks(two, scenario):
    two.run(getattr(scenarios, scenario))


@pytest.mark.slow
@pytest.mark.parametrize('scenario', ['without_statistics', 'averaged_model'])
def test_more_of_two_ranks(two, scenario):
    two.run(getattr(scenarios, scenario))


@pytest.mark.slow
@pytest.mark.parametrize(
    'scenario', ['merged', 'narrow_types', 'hooks_together', 'every_type_survives_averaging']
)
def test_three_ranks(three, scenario):
    three.run(getattr(scenarios, scenario))
