"""SSN and population statistics over ranks."""

import pytest
import torch

from tests.dist import training_scenarios as scenarios
from tests.hooks.isw_training import files


@pytest.mark.slow
@pytest.mark.parametrize(('norm', 'accumulate'), [('SSN', 1), ('SSN', 2), ('SyncSSN', 1)])
def test_ssn_decides_alike_on_all_ranks(two, tmp_path, norm, accumulate):
    """DDP raises if a parameter takes no part: decided ratios still do."""
    first, second = two.run(scenarios.ssn, tmp_path / 'work', norm, accumulate)
    assert first == second
    for choice in first:
        assert sorted(choice) == [0, 0, 1]


@pytest.mark.slow
def test_isw_finds_the_same_masks_on_all_ranks(two, tmp_path):
    """Each rank sees other images and draws other numbers."""
    pytest.importorskip('mmseg')
    files(tmp_path / 'data')
    two.run(scenarios.load_mmseg)
    (masks, losses, weights), (others, other_losses, other_weights) = two.run(
        scenarios.isw, tmp_path / 'work'
    )
    assert all(map(torch.equal, masks, others))
    assert any(mask.any() for mask in masks)
    assert 0 < losses[-1] != other_losses[-1] > 0
    for name, value in weights.items():
        assert torch.equal(value, other_weights[name]), name


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
