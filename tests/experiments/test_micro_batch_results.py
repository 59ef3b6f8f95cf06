"""The file of finished trainings, and the progress of the others."""

import pytest

from normplug.errors import UserError
from normplug.experiments.micro_batch.cells import Cell
from normplug.experiments.micro_batch.results import append_result, read_results
from normplug.experiments.progress import Progress, duration

CELLS = [Cell('bn', 2, 0), Cell('gn', None, 0)]
NOW = {'bn': 'aaa', 'gn': 'bbb'}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'results.jsonl'
    for cell in CELLS:
        append_result(path, cell, {'error': 1.5, 'config': NOW[cell.norm]})
    return path


def test_what_is_appended_is_read(file, tmp_path):
    found = read_results(file, NOW)
    assert list(found) == CELLS
    assert found[CELLS[1]]['error'] == 1.5
    assert read_results(tmp_path / 'none.jsonl', NOW) == {}


def test_half_a_line_is_removed(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert list(read_results(file, NOW)) == CELLS[:1]
    append_result(file, CELLS[1], {'error': 1.5, 'config': 'bbb'})
    assert file.read_bytes() == whole


def test_other_settings_are_refused_and_other_norms_kept(file):
    assert list(read_results(file, {'gn': 'bbb'})) == CELLS
    with pytest.raises(UserError, match='trainings of gn with other settings'):
        read_results(file, {**NOW, 'gn': 'ccc'})


@pytest.mark.parametrize('line', ['no json', '[1]', '{"norm": "bn", "batch": 2, "seed": 0}', '1'])
def test_a_line_that_is_not_ours(file, line):
    file.write_text(file.read_text() + line + '\n')
    with pytest.raises(UserError, match='--work-dir: line 3 of '):
        read_results(file, NOW)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match=r'--work-dir: .* cannot be written'):
        append_result(tmp_path, CELLS[0], {})
    with pytest.raises(UserError, match=r'--work-dir: .* cannot be read'):
        read_results(tmp_path, {})


def test_time_left(capsys):
    clock = iter([100.0, 150.0, 500.0])
    progress = Progress(6, 2, lambda: next(clock))
    progress.finished('bn_2: error 12.3 %')
    # One done and two half done in 50 s: the work of 4 more lasts 100 s.
    progress.done = 5
    progress.finished('gn: diverged')
    first, second = capsys.readouterr().err.splitlines()
    assert first == '[1/6] 2 min left; bn_2: error 12.3 %'
    assert second == '[6/6] 0 s left; gn: diverged'


def test_durations_are_in_fitting_units():
    assert [duration(s) for s in (5.4, 240, 9000)] == ['5 s', '4 min', '2.5 h']
