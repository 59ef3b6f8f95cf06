"""tools/matrix.py: its rows, its reading of pytest's output, and the table that it writes."""

import importlib.util
import re
from pathlib import Path

import pytest

from normplug.environment import TORCH_FLOOR

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location('matrix', ROOT / 'tools/matrix.py')
matrix = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(matrix)


def test_the_declared_floor_is_the_one_that_is_tested():
    project = (ROOT / 'pyproject.toml').read_text()  # Python 3.10 cannot parse it
    assert f'"torch>={TORCH_FLOOR}"' in project
    assert f'torch=={TORCH_FLOOR}.0' in matrix.ROWS['floor'].changes
    low, high = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project).groups()
    pythons = {row.python for row in matrix.ROWS.values()}
    assert pythons == {f'3.{minor}' for minor in range(int(low), int(high))}


@pytest.mark.parametrize('row', matrix.ROWS.values(), ids=list(matrix.ROWS))
def test_a_row_changes_its_lines_of_the_constraints_alone(row):
    pinned = (ROOT / 'tools/constraints.txt').read_text()
    old = pinned.splitlines()
    new = matrix.changed_constraints(pinned, row.changes).splitlines()
    assert len(new) == len(old)
    assert [line for line in new if line not in old] == list(row.changes)


def test_a_change_of_what_is_not_pinned_is_an_error():
    with pytest.raises(ValueError, match='0 lines for torc, not one'):
        matrix.changed_constraints('torch==1\n', ('torc==2',))


@pytest.mark.parametrize(
    ('last', 'counts'),
    [
        ('= 1603 passed, 299 warnings in 352.02s (0:05:52) =', ('1603', '0', '0')),
        ('= 14 failed, 1588 passed, 3 skipped in 296.12s =', ('1588', '14', '3')),
        ('= 1 failed, 2 passed, 1 error in 1s =', ('2', '2', '0')),
        ('= 2 errors in 1s =', ('0', '2', '0')),
    ],
)
def test_outcomes(last, counts):
    assert tuple(matrix.outcomes(f'FAILED 7 passed\n{last}\n').values()) == counts


def test_a_row_replaces_its_old_line_and_no_other():
    table = matrix.with_row('', 'newest', {'row': 'newest', 'passed': '1'})
    table = matrix.with_row(table, 'floor', {'row': 'floor', 'passed': '2'})
    table = matrix.with_row(table, 'newest', {'row': 'newest', 'passed': '3'})
    assert table == matrix.HEADER + '| floor | 2 |\n| newest | 3 |\n'
    table += '\n## Model zoos\n\n| floor | 4 |\n'
    table = matrix.with_row(table, 'floor', {'row': 'floor', 'passed': '5'})
    assert table == (
        matrix.HEADER + '| floor | 5 |\n| newest | 3 |\n\n## Model zoos\n\n| floor | 4 |\n'
    )


def test_the_table_in_the_docs_is_one_that_the_tool_wrote():
    text = (ROOT / 'docs/matrix.md').read_text()
    assert text.startswith(matrix.HEADER)
    rows = [line.split(' | ')[0].removeprefix('| ') for line in text.splitlines()]
    assert [row for row in rows if row in matrix.ROWS] == list(matrix.ROWS)
