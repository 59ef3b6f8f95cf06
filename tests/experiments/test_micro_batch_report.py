"""Table, CSV and figure of results that were made up."""

import csv
import io

import cv2
import numpy as np
import pytest

from normplug.experiments.micro_batch import figure as figures
from normplug.experiments.micro_batch.cells import Cell
from normplug.experiments.micro_batch.report import files, summarize

BN2 = [10.0, 14.0, 11.5]
CELLS = [Cell('bn', b, s) for b in (2, 16) for s in range(3)]
CELLS += [Cell('gn', None, s) for s in range(3)] + [Cell('sn', 2, s) for s in range(3)]


def row(error, **more):
    loss = None if error is None else error / 10
    return {'error': error, 'train_loss': loss, 'seconds': 4.0, 'commit': 'c1', **more}


@pytest.fixture
def results():
    found = {Cell('bn', 2, s): row(error) for s, error in enumerate(BN2)}
    found |= {Cell('gn', None, s): row(20.0 + s) for s in range(2)}
    found |= {Cell('sn', 2, 0): row(5.0), Cell('sn', 2, 1): row(None, commit='c2')}
    return found | {Cell('bn', 2, 9): row(99.0)}  # of a seed that is not asked for


def test_means_and_deviations(results):
    bn2, bn16, gn, sn = summarize(CELLS, results)
    assert bn2.mean == pytest.approx(np.mean(BN2))
    assert bn2.std == pytest.approx(np.std(BN2, ddof=1))
    assert bn2.train_loss == pytest.approx(np.mean(BN2) / 10)
    assert (bn16.mean, bn16.std, bn16.train_loss, bn16.seconds) == (None, None, None, None)
    assert (gn.mean, gn.seeds, len(gn.errors)) == (20.5, 3, 2)
    # The mean of the seeds that did not diverge would flatter.
    assert (sn.mean, sn.std, sn.diverged) == (None, None, 1)


def test_one_seed_has_no_deviation():
    (one,) = summarize(CELLS[:1], {CELLS[0]: row(7.0)})
    assert (one.mean, one.std, str(one)) == (7.0, None, '7.0')


def test_the_table_shows_what_is_missing(results):
    lines = files(CELLS, results)['micro_batch.md'].decode().splitlines()
    assert lines[0].startswith('Validation error (%)')
    assert [line for line in lines if line.startswith('|')] == [
        '| norm | 2 | 16 | none |',
        '| --- | --- | --- | --- |',
        '| BN | 11.8 ± 2.0 | - |  |',
        '| GN |  |  | 20.5 ± 0.7 (2 of 3 seeds) |',
        '| SN | diverged: 1 of 2 seeds |  |  |',
    ]
    assert '- commit: `c1; c2`' in lines


def test_the_csv(results):
    table = files(CELLS, results)['micro_batch.csv'].decode()
    bn2, bn16, gn, sn = csv.DictReader(io.StringIO(table))
    assert (bn2['norm'], bn2['batch'], bn2['errors']) == ('bn', '2', '10.00 14.00 11.50')
    assert float(bn2['error_std']) == pytest.approx(np.std(BN2, ddof=1), rel=1e-5)
    assert (bn16['finished'], bn16['error_mean']) == ('0', '')
    assert (gn['batch'], gn['finished']) == ('', '2')
    assert (sn['finished'], sn['diverged'], sn['error_mean']) == ('2', '1', '')
    assert sn['commit'] == 'c1; c2'


def test_the_figure(results, tmp_path, monkeypatch):
    results |= {Cell('bn', 16, s): row(error) for s, error in enumerate([4.0, 5.0, 6.0])}
    kept = []
    monkeypatch.setattr(figures.plt, 'close', kept.append)
    (tmp_path / 'a.png').write_bytes(files(CELLS, results)['micro_batch.png'])
    monkeypatch.undo()
    axes = kept[0].axes[0]
    (bn,) = axes.containers
    assert bn.lines[0].get_xydata() == pytest.approx(np.array([[2, np.mean(BN2)], [16, 5]]))
    (bars,) = bn.lines[2]
    lengths = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
    assert lengths == pytest.approx([2 * np.std(BN2, ddof=1), 2])
    assert [text.get_text() for text in axes.get_legend().texts] == ['GN', 'BN']
    assert cv2.imread(str(tmp_path / 'a.png')).std() > 1
    figures.plt.close(kept[0])
