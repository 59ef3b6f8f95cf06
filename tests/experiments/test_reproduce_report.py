"""The report of a table, from records."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from normplug.errors import exit_code
from normplug.experiments.reproduce.figure import figure
from normplug.experiments.reproduce.jobs import JobPlan
from normplug.experiments.reproduce.report import report
from normplug.experiments.reproduce.rows import OWN_TEST, Column, Row, Scale, Table
from normplug.experiments.reproduce.run import LOG
from normplug.experiments.reproduce.summary import summarize
from normplug.hooks.nonfinite_loss import NonFiniteLossError

AP = Column('AP', 'coco/bbox_mAP', factor=100)
ERROR = Column('error', 'accuracy/top1', 'other', is_error=True, higher_is_better=False)
ROWS = tuple(Row(name, None, Scale('x'), {'AP': 30.0}) for name in ('a', 'b', 'c', 'd'))
LARGE = Column('AP_l', 'coco/bbox_mAP_l', factor=100)
TABLE = Table('t', 'A table', 'somewhere', (AP, ERROR, LARGE), ROWS, 'a twin')
SEEDS = (0, 1)
APS = {'a': (0.30, 0.32), 'b': (0.31, 0.33), 'c': (0.40, 0.42), 'd': (0.20,)}
SOURCE = {'commit': 'abc', 'images_per_second': 4.0, 'peak_memory': 100}


@pytest.fixture
def summaries():
    cells, records = {}, {}
    for row in ROWS:
        for seed in SEEDS:
            place = Path(f'{row.name}{seed}')
            cells[TABLE.name, row.name, seed] = {OWN_TEST: place, 'other': place / 'other'}
            if seed < len(APS[row.name]):
                metrics = {'coco/bbox_mAP': APS[row.name][seed]}
                records[place] = {**SOURCE, 'metrics': metrics}
    records[Path('a0/other')] = {'metrics': {'accuracy/top1': 90.0}}
    records[Path('b0')]['metrics']['coco/bbox_mAP_l'] = -1.0
    return summarize(TABLE, ROWS, SEEDS, JobPlan({}, cells), records)


def test_marks_are_against_the_row_above(summaries):
    # Two seeds 2 points apart: a standard deviation of 1.41; the sum of two, 2.83.
    assert [s.mark for s in summaries] == ['', 'equal', 'better', '']
    assert summaries[0].cells['AP'].std == pytest.approx(2**0.5)


def test_cells(summaries):
    a, *_, d = summaries
    assert str(a.cells['AP']) == '31.0 ± 1.4'
    assert str(d.cells['AP']) == '20.0 (1 of 2 seeds)'
    assert str(d.cells['error']) == 'missing'
    assert a.cells['error'].values == (10.0,)
    assert (a.speed, a.memory) == (4.0, 100)
    # COCO's -1 for data without large objects.
    assert summaries[1].cells['AP_l'].values == ()
    assert str(summaries[1].cells['AP_l']) == 'none'


def test_rows_of_other_groups_are_not_compared():
    rows = tuple(Row(name, None, Scale('x'), group=name) for name in 'ab')
    table = Table('t', '', '', (AP,), rows, '')
    cells = {('t', name, s): {OWN_TEST: Path(name + str(s))} for name in 'ab' for s in SEEDS}
    values = {'a0': 0.2, 'a1': 0.2, 'b0': 0.1, 'b1': 0.1}
    records = {Path(k): {**SOURCE, 'metrics': {AP.metric: v}} for k, v in values.items()}
    summaries = summarize(table, rows, SEEDS, JobPlan({}, cells), records)
    assert [summary.mark for summary in summaries] == ['', '']


def test_a_row_that_this_scale_has_not():
    (summary,) = summarize(TABLE, ROWS[:1], SEEDS, JobPlan({}, {}), {})
    assert str(summary.cells['AP']) == 'not at this scale'
    assert report(TABLE, 'digits', [summary], [])['t.png'].startswith(b'\x89PNG')


def test_files(summaries):
    files = report(TABLE, 'digits', summaries, [SOURCE])
    text = files['t.md'].decode()
    assert '| a | 30 / 31.0 ± 1.4 / +1.0 | - / 10.0 (1 of 2 seeds) / - | - |  | 4 | 100 |' in text
    assert '- commit: `abc`' in text
    assert '**Here: a twin.**' in text
    assert '**Here' not in report(TABLE, 'real', summaries, [SOURCE])['t.md'].decode()
    assert 'pretraining' not in files['t.md'].decode()
    for own, told in ((True, 'Each seed has a pretraining'), (False, 'start from one pretraining')):
        assert told in report(TABLE, 'real', summaries, [SOURCE], own)['t.md'].decode()
    rows = list(csv.DictReader(io.StringIO(files['t.csv'].decode())))
    assert len(rows) == len(ROWS) * 3
    assert rows[0]['values'] == '30.000 32.000'
    assert (rows[0]['published'], rows[0]['difference']) == ('30', '1')
    assert [row['against_row_above'] for row in rows[3:9:3]] == ['equal', 'better']
    assert rows[-1]['mean'] == ''
    assert files['t.png'].startswith(b'\x89PNG')


def test_a_smaller_error_is_better():
    column = Column('error', 'e', higher_is_better=False)
    table = Table('t', '', '', (column,), ROWS[:2], '')
    cells = {('t', name, s): {OWN_TEST: Path(name + str(s))} for name in 'ab' for s in SEEDS}
    values = {'a0': 20.0, 'a1': 20.1, 'b0': 10.0, 'b1': 10.1}
    records = {Path(k): {**SOURCE, 'metrics': {'e': v}} for k, v in values.items()}
    marks = [s.mark for s in summarize(table, ROWS[:2], SEEDS, JobPlan({}, cells), records)]
    assert marks == ['', 'better']


def test_curves_over_images_a_gpu():
    columns = (Column('top-1', 'a'), Column('ratio of BN', 'ratio/BN', factor=100))
    rows = [Row(f'SN {n}', None, Scale('x'), {'ratio of BN': 50}, 'SN', n) for n in (2, 32)]
    table = Table('t', '', '', columns, tuple(rows), '')
    cells = {('t', row.name, 0): {OWN_TEST: Path(row.name)} for row in rows}
    metrics = {'a': 80.0, 'ratio/BN': 0.4}
    records = {Path(row.name): {**SOURCE, 'metrics': metrics} for row in rows}
    summaries = summarize(table, rows, (0,), JobPlan({}, cells), records)
    assert summaries[0].cells['ratio of BN'].mean == pytest.approx(40)
    assert report(table, 'digits', summaries, [])['t.png'].startswith(b'\x89PNG')


def test_curves_show_means_and_deviations():
    values = {('BN', 2): (70.0, 74.0, 71.5), ('BN', 32): (90.0, 91.0, 92.0), ('GN', 32): (80.0,)}
    columns = (Column('top-1', 'a'),)
    rows = [Row(f'{norm} {n}', None, Scale('x'), {}, norm, n) for norm, n in values]
    table = Table('t', '', '', columns, tuple(rows), '')
    places = {(row.name, s): Path(f'{row.name} {s}') for row in rows for s in range(3)}
    cells = {('t', name, s): {OWN_TEST: place} for (name, s), place in places.items()}
    records = {
        places[row.name, s]: {**SOURCE, 'metrics': {'a': value}}
        for row in rows
        for s, value in enumerate(values[row.norm, row.images])
    }
    summaries = summarize(table, rows, range(3), JobPlan({}, cells), records)
    axes, _ = figure(table, 'digits', summaries).axes
    bn, gn = axes.containers
    means = [np.mean(values['BN', n]) for n in (2, 32)]
    assert bn.lines[0].get_xydata() == pytest.approx(np.array([[2, means[0]], [32, means[1]]]))
    (bars,) = bn.lines[2]
    lengths = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
    assert lengths == pytest.approx([2 * np.std(values['BN', n], ddof=1) for n in (2, 32)])
    assert gn.lines[0].get_xydata() == pytest.approx(np.array([[32, 80]]))
    assert [text.get_text() for text in axes.get_legend().texts] == ['BN', 'GN']


def test_a_seed_that_diverged_is_told(tmp_path, capsys):
    def diverges():
        raise NonFiniteLossError('the loss is NaN or Inf in iteration 3')

    cells = {(TABLE.name, 'a', s): {OWN_TEST: tmp_path / str(s)} for s in range(3)}
    records = {tmp_path / '0': {**SOURCE, 'metrics': {AP.metric: 0.3}}}
    assert exit_code(diverges, 'tools/train.py') == 1
    for seed, told in ((1, capsys.readouterr().err), (2, 'Killed')):
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / LOG).write_text(f'before\n{told}\n')
    summaries = summarize(TABLE, ROWS[:1], range(3), JobPlan({}, cells), records)
    assert str(summaries[0].cells['AP']) == 'diverged: 1 of 3 seeds'
    assert summaries[0].cells['AP'].mean is None
    text = report(TABLE, 'digits', summaries, [SOURCE])['t.md'].decode()
    assert '| a | 30 / diverged: 1 of 3 seeds / - |' in text
    axes = figure(TABLE, 'digits', summaries).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ['a\ndiverged: 1 of 3 seeds']
    assert [list(line.get_xdata()) for line in axes.lines] == [[30]]


def test_a_norm_without_a_batch_is_a_line_and_the_second_column_has_curves():
    columns = (Column('error', 'a'), Column('loss', 'train/loss', factor=100))
    values = {('PN', None): (12.0, 0.02), ('BN', 32): (8.0, 0.1), ('BN', 2): (9.0, 0.3)}
    rows = [Row(f'{norm} {n}', None, Scale('x'), {}, norm, n) for norm, n in values]
    table = Table('t', '', '', columns, tuple(rows), '')
    cells = {('t', row.name, 0): {OWN_TEST: Path(row.name)} for row in rows}
    records = {
        Path(row.name): {**SOURCE, 'metrics': dict(zip(('a', 'train/loss'), both, strict=True))}
        for row, both in zip(rows, values.values(), strict=True)
    }
    summaries = summarize(table, rows, (0,), JobPlan({}, cells), records)
    for axes, line, curve in zip(
        figure(table, 'digits', summaries).axes, (12, 2), ([9, 8], [30, 10]), strict=True
    ):
        assert set(axes.lines[0].get_ydata()) == {line}
        (bn,) = axes.containers
        assert bn.lines[0].get_xydata() == pytest.approx(np.array([[2, curve[0]], [32, curve[1]]]))
        assert [text.get_text() for text in axes.get_legend().texts] == ['PN', 'BN']
