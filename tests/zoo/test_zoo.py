"""A config of each family of the model zoos trains and predicts with our normalizers."""

import fnmatch
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.zoo.cases import CASES, Case
from tests.zoo.known_failures import FAILURES, PLACED, STEPS, known_failure, section
from tests.zoo.run import build, check_norms, check_prediction, check_training, foreign_norms

DOCUMENT = Path(__file__).parents[2] / 'docs/matrix.md'


def steps(case: Case) -> Iterator[str]:
    """Run `case` and give each of STEPS when it is done."""
    model, batch = build(case)
    check_norms(model, case)
    yield 'build'
    check_training(model, batch, case)
    yield 'training'
    check_prediction(model, batch, case)
    yield 'prediction'


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # mm's, hundreds
@pytest.mark.parametrize('case', CASES, ids=str)
def test_it_trains_and_predicts(case):
    pytest.importorskip(case.scope)
    run, failure = steps(case), known_failure(case)
    for step in STEPS:
        if failure is not None and step == failure.step:
            with pytest.raises(failure.error, match=failure.message):
                next(run)
            pytest.xfail(failure.cause)
        assert next(run) == step


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('case', PLACED, ids=str)
def test_a_placement_is_needed(case):
    pytest.importorskip(case.scope)
    model, _ = build(replace(case, placement=()))
    left = foreign_norms(model)
    for pattern in case.placement:
        assert fnmatch.filter(left, pattern), pattern


def test_a_known_failure_is_of_a_config_of_the_sweep():
    configs = {f'{case.scope}/{case.config}' for case in CASES}
    assert {failure.config for failure in FAILURES} <= configs
    assert len({str(case) for case in CASES}) == len(CASES)


def test_the_document_is_what_the_sweep_shows():
    text = DOCUMENT.read_text()
    expected = section()
    assert text.endswith(f'\n{expected}'), f'docs/matrix.md must end with:\n\n{expected}'
