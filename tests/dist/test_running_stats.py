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


def test_two_ranks(two):
    two.run(scenarios.merged)


@pytest.mark.slow
def test_three_ranks(three):
    three.run(scenarios.merged)


@pytest.mark.slow
def test_narrow_types(three):
    three.run(scenarios.narrow_types)


@pytest.mark.slow
def test_a_model_without_statistics(two):
    two.run(scenarios.without_statistics)


@pytest.mark.slow
def test_together_with_mmengines_hook(three):
    three.run(scenarios.hooks_together)


@pytest.mark.slow
def test_averaged_model(two):
    two.run(scenarios.averaged_model)


@pytest.mark.slow
def test_every_type_survives_averaging(three):
    three.run(scenarios.every_type_survives_averaging)
