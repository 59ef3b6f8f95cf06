"""Rows as CSV and Markdown, and what several seeds come to."""

import numpy as np
import pytest

from normplug.reports.summary import SeedSummary
from normplug.reports.tables import to_csv, to_markdown


def test_tables():
    rows = [
        {'mode': 'train', 'norm': 'SN', 'ms': 1.23456789, 'MB': None, 'count': 12345},
        {'mode': 'train', 'norm': 'BN', 'ms': 123456.789, 'MB': None, 'count': 0},
        {'mode': 'eval', 'norm': 'SN', 'ms': 0.0001, 'MB': 7.0, 'count': 1},
    ]
    source = {'command': 'tool --x', 'commit': ''}
    assert to_csv(rows, source).decode() == (
        'mode,norm,ms,MB,count,command,commit\n'
        'train,SN,1.23457,,12345,tool --x,\n'
        'train,BN,123457,,0,tool --x,\n'
        'eval,SN,0.0001,7,1,tool --x,\n'
    )
    table = to_markdown(rows, ('norm', 'ms', 'MB', 'count'), source, ('mode',)).decode()
    assert '### train\n\n| norm | ms | count |\n' in table
    assert '| SN | 1.23 | 12345 |\n| BN | 123457 | 0 |\n' in table
    assert '### eval\n\n| norm | ms | MB | count |\n' in table
    assert table.endswith('- command: `tool --x`\n')


def test_columns_are_those_of_all_rows():
    rows = [{'run': 'a', 'loss': 0.12345678}, {'run': 'b', 'AP': 1.0}]
    assert to_csv(rows, digits=None).decode() == 'run,loss,AP\na,0.12345678,\nb,,1.0\n'


def test_means_and_deviations_over_the_seeds():
    values = (10.0, 14.0, 11.5)
    three = SeedSummary(values, 3)
    assert three.mean == pytest.approx(np.mean(values))
    assert three.std == pytest.approx(np.std(values, ddof=1))
    assert str(three) == '11.8 ± 2.0'
    assert str(SeedSummary(values, 5)) == '11.8 ± 2.0 (3 of 5 seeds)'
    one, none = SeedSummary((7.0,), 1), SeedSummary((), 3)
    assert (one.mean, one.std, str(one)) == (7.0, None, '7.0')
    assert (none.mean, none.std, str(none)) == (None, None, 'missing')


def test_the_mean_of_the_seeds_that_did_not_diverge_would_flatter():
    some = SeedSummary((5.0, 6.0), 3, diverged=1)
    assert (some.mean, some.std, str(some)) == (None, None, 'diverged: 1 of 3 seeds')
