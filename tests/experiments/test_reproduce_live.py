"""How far a table is, and how long the rest will take."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from normplug.experiments.reproduce.live import Live, duration
from normplug.experiments.reproduce.pace import Pace, seconds_left
from normplug.experiments.reproduce.run import LOG


def job(name, trains=True):
    cfg = Config({'train_cfg': {'max_epochs': 3}})
    return SimpleNamespace(folder=Path(name), name=name, trains=trains, cfg=cfg)


FIRST = 'Iter(train) [  50/2400]  lr: 7e-03  eta: 0:39:10  time: {}  data_time: 0.8  loss: 2.1\n'


@pytest.mark.parametrize(
    ('told', 'seconds'),
    [
        ('Iter(train) [1600/2400]  lr: 7.4e-03  eta: 0:01:14  time: 0.25  data_time: 0.9', 200),
        ('Epoch(train) [3][100/780]  lr: 1e-02  eta: 11:00:02  time: 0.5  data_time: 0.9', 340),
        ('Epoch(train)  [1][ 50/780]  eta: 1 day, 0:00:02  time: 2.0', 2 * (730 + 2 * 780)),
        (FIRST.format(9.0) + 'Epoch(val) [1][9/99]  eta: 0:09:00  time: 7.0\n', 9 * 2350),
        (FIRST.format(9.0) + FIRST.format(0.1) + 'Saving checkpoint\n' * 9, 235),
        ('beta: 0:00:09', None),
        ('', None),
    ],
)
def test_what_a_training_said_last(tmp_path, told, seconds):
    """Not its own 'eta', to which the seconds of the first iterations, which compile, are added."""
    (tmp_path / LOG).write_text(told)
    assert seconds_left(job(tmp_path)) == (seconds and pytest.approx(seconds))


def test_a_long_log_is_read_at_its_end(tmp_path):
    long = b'time: \xff\n' * 9999 + FIRST.format(9.0).encode() + 'é '.encode()
    (tmp_path / LOG).write_bytes(long + FIRST.format(0.1).encode())
    assert seconds_left(job(tmp_path)) == pytest.approx(235)
    assert seconds_left(job(tmp_path / 'none')) is None


def test_pace(monkeypatch):
    told = {}
    monkeypatch.setattr(
        'normplug.experiments.reproduce.pace.seconds_left', lambda job: told.get(job.folder)
    )
    jobs = [job(name) for name in 'abcd'] + [job('test', trains=False)]
    pace = Pace(jobs, 2)
    at = {Path('a'): 100.0, Path('b'): 50.0}
    assert pace.left(at) is None
    # a takes 400 s, and so will the other three, of which b has done 50: 300 + 350 + 2 * 400.
    told[Path('a')] = 300.0
    assert pace.left(at) == (300 + 350 + 800) / 2
    pace.ended(jobs[0], 200.0)
    pace.ended(jobs[2], None)  # failed
    told[Path('b')] = 250.0  # of 300; d takes the mean of 200 and 300
    assert pace.left({Path('b'): 50.0, Path('test'): 9.0}) == (250 + 250) / 2
    pace.ended(jobs[3], 100.0)
    assert pace.left({Path('b'): 50.0}) == 250  # one alone is not shared
    pace.ended(jobs[1], 300.0)
    assert pace.left({Path('test'): 9.0}) == 0


@pytest.mark.parametrize(('terminal', 'lines'), [(True, 4), (False, 3)])
def test_the_line_is_renewed_while_jobs_run(monkeypatch, capsys, tmp_path, terminal, lines):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal, raising=False)
    monkeypatch.setenv('COLUMNS', '60')
    one, other = job(str(tmp_path)), job('other')
    one.name, other.name = 'one', 'other'
    (tmp_path / LOG).write_text('Iter(train) [ 10/130]  time: 1.0')
    now = [0.0]
    live = Live([one, other], 1, lambda: now[0])
    live.say('one: started')
    for now[0] in (1.0, 3.0, 601.0):
        live.watch({one.folder: now[0]})
    live.ended(one, 700.0)
    live.close()
    told = capsys.readouterr().err
    if terminal:
        told = told.removesuffix('\n').replace('\r\x1b[K', '\n')
    parts = [line for line in told.split('\n') if line]
    assert parts[0] == 'one: started'
    assert len(parts) == lines
    assert parts[-1] == '[1/2] 12 min left; one: 12 min'
    assert parts[-2] == '[0/2] 14 min left; running: one'


def test_durations_are_in_fitting_units():
    assert [duration(s) for s in (5.4, 240, 9000)] == ['5 s', '4 min', '2.5 h']


def test_a_short_test_does_not_tell_how_long_trainings_take(capsys):
    test, training = job('test', trains=False), job('training')
    live = Live([test, training], 1, lambda: 0.0)
    live.ended(test, 5.0)
    assert capsys.readouterr().err == '[1/2] time left unknown; test: 5 s\n'
