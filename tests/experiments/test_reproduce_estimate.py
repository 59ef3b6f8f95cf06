"""What is left is printed at once, and estimated only where that is asked for."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from normplug.data.build import DigitsSettings
from normplug.data.scene import SceneSettings
from normplug.experiments.reproduce import cli, digits, estimate
from normplug.experiments.reproduce.jobs import Job


def test_a_dry_run_prints_and_does_nothing_else(tmp_path, monkeypatch, capsys):
    def built(*args, **kwargs):
        raise AssertionError('a dry run builds nothing')

    monkeypatch.setattr(type(MODELS), 'build', built)
    monkeypatch.setattr(digits, 'build_digits', built)
    monkeypatch.setattr(subprocess, 'run', built)
    monkeypatch.setattr(subprocess, 'Popen', built)
    monkeypatch.chdir(tmp_path)
    assert cli.main_reproduce(['table3', '--rows', 'SN/SN', '--seeds', '2', '--dry-run']) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert len(lines) == 3
    assert all('tools/train.py' in line for line in lines)
    assert told.err == '0 of 3 jobs are finished, in work_dirs/reproduce\n'
    assert not any(tmp_path.iterdir())
    # Tables that have one name together; their pretraining is one.
    row = ['--rows', 'BRN, 1 image', '--seeds', '1', '--dry-run']
    assert cli.main_reproduce(['league', *row]) == 0
    pretraining, *rows = capsys.readouterr().out.splitlines()
    assert 'resnet18-w32_bn_1xb32' in pretraining
    assert ['faster_rcnn' in line for line in rows] == [True, False]
    # What real data lack is told all the same.
    assert cli.main_reproduce(['table3', '--data', 'real', '--dry-run', '--seeds', '1']) == 2
    assert 'data/coco' in capsys.readouterr().err


def stopped_after(monkeypatch, seconds):
    """The stopwatch at the end of a training whose iterations take these seconds."""
    now = [0.0]
    monkeypatch.setattr(estimate.time, 'monotonic', lambda: now[0])
    watch = estimate._Stopwatch()

    def train():
        watch.before_train(None)
        for took in seconds:
            now[0] += took
            watch.after_train_iter(None, 0)

    with pytest.raises(estimate._Enough):
        train()
    return watch


def test_compilation_does_not_count(monkeypatch):
    # At first, a little later for other sizes, and once among those that count.
    seconds = [40.0, 0.1, 9.0, *[0.2] * 40, 30.0, *[0.2] * 99]
    watch = stopped_after(monkeypatch, seconds)
    assert watch.seconds() == pytest.approx(0.2)
    assert len(watch.times) == estimate._ITERATIONS


def test_slow_iterations_are_not_waited_for(monkeypatch):
    watch = stopped_after(monkeypatch, [25.0] * 99)
    assert len(watch.times) == estimate._AT_LEAST
    assert watch.seconds() == 25.0


@pytest.mark.parametrize(
    ('train_cfg', 'gpus', 'iterations'),
    [({'max_iters': 70}, 4, 70), ({'max_epochs': 3}, 1, 3 * 9), ({'max_epochs': 3}, 2, 3 * 5)],
)
def test_start_and_iterations_make_the_whole(monkeypatch, train_cfg, gpus, iterations):
    found = {'seconds': 0.5, 'training': 60.0, 'images': 17}
    monkeypatch.setattr(
        subprocess,
        'run',
        lambda *a, **k: SimpleNamespace(returncode=0, stdout=f'a log\n{json.dumps(found)}\n'),
    )
    clock = iter([100.0, 172.0])
    monkeypatch.setattr(estimate.time, 'monotonic', lambda: next(clock))
    cfg = Config({'train_cfg': train_cfg, 'train_dataloader': {'batch_size': 2}})
    job = Job('a', Path('a'), 'a.py', cfg, (), ())
    # Of 72 s the training, compilation and all, took 60.
    assert estimate.estimated_seconds(job, gpus, 1) == 12 + 0.5 * iterations


@pytest.mark.slow
def test_an_estimate_of_a_row(tmp_path, monkeypatch, capsys):
    small = DigitsSettings(train=64, val=20, scene=SceneSettings(size=64))
    monkeypatch.setattr(digits, 'DigitsSettings', lambda: small)
    monkeypatch.setenv('NORMPLUG_BACKEND', 'eager')
    monkeypatch.chdir(tmp_path)
    arguments = ['comparison', '--rows', 'BN (256, 32)', '--seeds', '1', '--estimate']
    assert cli.main_reproduce([*arguments, '--cfg-options', 'train_dataloader.batch_size=2']) == 0
    told = capsys.readouterr()
    assert '[1/1] measuring ' in told.err
    one, total = told.out.splitlines()
    assert one.endswith(' a training')
    assert total.startswith('1 jobs, about ')
    assert 'could not be measured' not in total
    assert [path.name for path in (tmp_path / 'work_dirs').iterdir()] == ['data']
