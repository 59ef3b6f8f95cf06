"""Contract, point 2: state dict names are an API."""

import json

import pytest

from normplug import NORMS
from tests.cases import CASES
from tests.mm.norm_layers import all_types
from tests.mm.state_dict_names import CHANNELS, GOLDEN, REGENERATE, current, described

HOW_TO_MEND = (
    f'names or shapes in a state dict changed, so that checkpoints written before will not load. '
    f'If that is meant, give the layer a load hook for the old names, run `{REGENERATE}` in the '
    f'root of the repository, and commit {GOLDEN.name}'
)


@pytest.mark.parametrize('name', sorted({*json.loads(GOLDEN.read_text()), *current()}))
def test_state_dict_is_as_recorded(name):
    recorded = json.loads(GOLDEN.read_text()).get(name)
    assert current().get(name) == recorded, f'{name}: {HOW_TO_MEND}'


def test_every_registered_type_is_recorded():
    assert {type(case.build(CHANNELS)) for case in CASES} == set(NORMS.values())


@all_types
def test_weight_and_bias_have_one_value_per_channel(norm_type):
    layer = NORMS[norm_type](CHANNELS)
    assert layer.weight.shape == layer.bias.shape == (CHANNELS,)


@all_types
def test_freezing_changes_no_name(norm_type):
    frozen = NORMS[norm_type](CHANNELS, frozen=True)
    assert described(frozen) == described(NORMS[norm_type](CHANNELS))
