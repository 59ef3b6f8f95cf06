"""tools/micro_batch.py from the command line to its files, on a tiny task."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from normplug.experiments.micro_batch import run, workers
from normplug.experiments.micro_batch.cells import Cell, configured, find_configs, load_norm
from normplug.experiments.micro_batch.cli import main_micro_batch
from normplug.experiments.micro_batch.task import build_task

pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/micro_batch'
TINY = ['--config-dir', str(CONFIGS), '--max-iters', '3', '--processes', '1']


def tiny(tmp_path):
    return {'data_root': str(tmp_path / 'data'), 'task.train': 20, 'task.val': 20}


@pytest.fixture
def argv(tmp_path, monkeypatch):
    monkeypatch.setenv('NORMPLUG_BACKEND', 'eager')  # for the workers: nothing is compiled
    options = [f'{key}={value}' for key, value in tiny(tmp_path).items()]
    return [*TINY, '--work-dir', str(tmp_path / 'out'), '--cfg-options', *options]


def read(tmp_path):
    lines = (tmp_path / 'out/results.jsonl').read_text().splitlines()
    return {(r['norm'], r['batch'], r['seed']): r for r in map(json.loads, lines)}


@pytest.fixture
def one_cell(tmp_path):
    """A function: options → the configuration of a training in this process."""

    def make(**options):
        cfg = load_norm(find_configs(CONFIGS)['bn'], {**tiny(tmp_path), **options}, 3)
        build_task(cfg, print)
        return configured(cfg, Cell('bn', 2, 0), tmp_path)

    return make


def test_the_error_is_that_of_the_trained_model(one_cell, monkeypatch):
    kept = []
    build = run.Runner.from_cfg
    monkeypatch.setattr(run.Runner, 'from_cfg', lambda cfg: kept.append(build(cfg)) or kept[0])
    row = run.train_cell(one_cell(**{'optim_wrapper.optimizer.lr': 0.02}))
    model = kept[0].model.eval()
    right, images = 0, 0
    with torch.no_grad():
        for batch in kept[0].val_dataloader:
            data = model.data_preprocessor(batch)
            labels = torch.cat([sample.gt_label for sample in data['data_samples']])
            right += (model(data['inputs']).argmax(1) == labels).sum().item()
            images += len(labels)
    assert images == 40
    assert row['error'] == pytest.approx(100 - 100 * right / images)
    assert row['iterations'] == 3
    assert row['train_loss'] > 0
    assert row['diverged'] is None


def test_a_training_that_diverges_is_a_result(one_cell):
    row = run.train_cell(one_cell(**{'optim_wrapper.optimizer.lr': 1e30}))
    assert (row['error'], row['train_loss']) == (None, None)
    assert 'NaN or Inf' in row['diverged']
    assert row['iterations'] < 3


@pytest.mark.parametrize(
    ('more', 'what'),
    [
        (['--norms', 'bn', 'xn'], '--norms: .* has no config of xn; it has those of bn, '),
        (['--batches', '2', '3'], '--batches: 3 does not divide'),
        (['--seeds', '0', '-1'], '--seeds must not be negative, got -1'),
        (['--processes', '0'], '--processes must be at least 1, got 0'),
        (['--max-iters', '0'], '--max-iters must be at least 1, got 0'),
        (['--config-dir', 'nowhere'], '--config-dir: nowhere has no config'),
        (['--work-dir', __file__], '--work-dir: .* cannot be written'),
        (['--cfg-options', 'model.backbone.depth=19'], 'model cannot be built: .*depth 19'),
        (['--cfg-options', 'model.backbone.norm_cfg.type=BN'], 'virtual_batch_size'),
        (['--cfg-options', 'model.backbone.norm_cfg.nope=1'], 'nope'),
    ],
)
def test_bad_input_is_told_before_anything_is_trained(tmp_path, capsys, more, what):
    options = ['--work-dir', str(tmp_path / 'out'), '--norms', 'bn']
    assert main_micro_batch([*TINY, *options, *more]) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if 'tools/micro_batch.py: error:' in line]
    assert re.search(what, line), line
    assert not (tmp_path / 'out/results.jsonl').exists()


def test_options_that_are_no_pairs(capsys):
    with pytest.raises(SystemExit, match='2'):
        main_micro_batch(['--cfg-options', 'lr'])
    assert "--cfg-options: 'lr' is not KEY=VALUE" in capsys.readouterr().err


@pytest.mark.slow
def test_from_nothing_to_a_report_and_on_from_an_interruption(argv, tmp_path, capsys):
    argv += ['--norms', 'bn', 'gn', '--batches', '2', '16', '--seeds', '0', '1']
    assert main_micro_batch(argv) == 0
    captured = capsys.readouterr()
    first = read(tmp_path)
    assert len(first) == 6
    assert '[6/6]' in captured.err
    table = (tmp_path / 'out/micro_batch.md').read_text()
    assert '| norm | 2 | 16 | none |' in table
    assert table in captured.out
    for row in first.values():
        assert (row['threads'], row['processes'], row['iterations']) == (1, 1, 3)
        assert row['command'].startswith('tools/micro_batch.py --config-dir')
    losses = {key: row['train_loss'] for key, row in first.items()}
    assert len(set(losses.values())) == 6  # norm, batch and seed all matter

    path = tmp_path / 'out/results.jsonl'
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(''.join(lines[:4]) + lines[4][:30])
    assert main_micro_batch(argv) == 0
    assert '4 of 6 trainings are finished' in capsys.readouterr().err
    again = read(tmp_path)
    assert {key: row['train_loss'] for key, row in again.items()} == losses
    assert {key: row['error'] for key, row in again.items()} == {
        key: row['error'] for key, row in first.items()
    }
    assert path.read_text().splitlines(keepends=True)[:4] == lines[:4]

    other = [*argv, '--max-iters', '4']
    assert main_micro_batch(other) == 2
    assert 'with other settings' in capsys.readouterr().err


@pytest.mark.slow
def test_workers_end_with_a_caller_that_stops(tmp_path, monkeypatch):
    monkeypatch.setenv('NORMPLUG_BACKEND', 'eager')
    cfg = load_norm(find_configs(CONFIGS)['bn'], tiny(tmp_path), 3)
    build_task(cfg, print)
    (tmp_path / 'out').mkdir()
    cells = [Cell('bn', 2, seed) for seed in range(50)]
    before = multiprocessing.active_children()
    trainings = workers.train_all({'bn': cfg}, cells, tmp_path / 'out', 1)
    assert next(trainings)[1]['iterations'] == 3
    trainings.close()
    assert multiprocessing.active_children() == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel ends the workers')
def test_workers_end_with_a_command_that_is_killed(argv, tmp_path):
    argv += ['--norms', 'bn', '--batches', '2', '--seeds', *map(str, range(50))]
    command = [sys.executable, str(ROOT / 'tools/micro_batch.py'), *argv]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with open(tmp_path / 'err', 'w') as err:
        process = subprocess.Popen(command, env=env, stdout=err, stderr=err)
    results = tmp_path / 'out/results.jsonl'
    try:
        deadline = time.monotonic() + 120
        while not results.exists():
            assert process.poll() is None, (tmp_path / 'err').read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = of_parent(process.pid)
        assert children
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while any(is_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(read(tmp_path)) < 50


def of_parent(pid):
    return [int(p.parent.name) for p in Path('/proc').glob('[0-9]*/stat') if status(p)[1] == pid]


def is_alive(pid):
    return status(Path(f'/proc/{pid}/stat'))[0] != 'Z'


def status(path):
    """State and parent."""
    try:
        state, parent = path.read_text().rpartition(')')[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return 'Z', 0
    return state, int(parent)
