"""tools/train.py: what it does, and what it refuses to begin."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from normplug.launch import load_config, options


def test_trains_and_logs_progress_eta_and_memory(project, train):
    assert train([project.write_config()]) == 0
    assert (project.work_dir / 'iter_4.pth').exists()
    lines = re.findall(r'Iter\(train\) \[\d/4\].*', project.log())
    assert len(lines) == 4
    assert all(re.search(r'eta: \d:\d\d:\d\d .*memory: [1-9]\d+ ', line + ' ') for line in lines)
    assert 'accuracy:' in project.log()


def test_what_building_the_model_says_is_said_once(project, train, capfd):
    """It is built twice, the first time to be checked."""
    placement = (
        "model.update(type='NormPlacement', model_type='TinyModel', "
        "norms=[dict(where='backbone.bn', norm_cfg=dict(type='SN'))])\n"
    )
    assert train([project.write_config(placement)]) == 0
    said = "norms at 'backbone.bn': 1 BatchNorm1d → SN: backbone.bn"
    assert project.log().count(said) == 1
    captured = capfd.readouterr()
    assert (captured.out + captured.err).count(said) == 1


def test_work_dir_defaults_to_config_name(project, train, monkeypatch):
    monkeypatch.chdir(project.folder)
    assert train([project.write_config('work_dir = None\n')]) == 0
    assert (project.folder / 'work_dirs/tiny/last_checkpoint').exists()


def test_work_dir_option_and_cfg_options_win(project, train):
    folder = project.folder / 'other'
    argv = [
        project.write_config(),
        '--work-dir',
        str(folder),
        '--cfg-options',
        'train_cfg.max_iters=2',
    ]
    assert train(argv) == 0
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'iter_2.pth')
    assert not project.work_dir.exists()


def test_missing_and_broken_config(project, train, refuses):
    refuses(train, ['no/such.py'], 'config file no/such.py does not exist')
    config = project.write_config('model = dict(\n')
    refuses(train, [config], f'cannot read config {config}', 'was never closed')
    config = project.write_config("custom_imports = dict(imports=['no_such_module'])\n")
    refuses(train, [config], f'cannot read config {config}', 'no_such_module')
    config = project.write_config("_base_ = 'gone.py'\n")
    refuses(train, [config], f'cannot read config {config}', 'gone.py')


def test_config_without_training(project, train, refuses):
    config = project.write_config('train_dataloader = train_cfg = optim_wrapper = None\n')
    refuses(train, [config], 'the config has no train_dataloader, train_cfg, optim_wrapper')


def test_bad_cfg_option(project, train, refuses):
    argv = [project.write_config('custom_hooks = []\n'), '--cfg-options', 'custom_hooks.3.type=A']
    refuses(train, argv, '--cfg-options does not fit', 'Index 3 exceeds')


def test_warns_about_an_earlier_training(project, train):
    config = project.write_config()
    assert train([config]) == 0
    assert 'holds the checkpoints' not in project.log()
    assert train([config, '--cfg-options', 'experiment_name=second']) == 0
    assert (
        f'work_dir {project.work_dir} holds the checkpoints of an earlier training' in project.log()
    )


def test_amp_refused_without_gpu_and_for_other_wrappers(project, train, refuses, monkeypatch):
    monkeypatch.setattr(options, 'get_device', lambda: 'cpu')
    refuses(train, [project.write_config(), '--amp'], '--amp needs a GPU')
    config = project.write_config("optim_wrapper.update(type='ApexOptimWrapper')\n")
    refuses(train, [config, '--amp'], 'optim_wrapper.type', 'not ApexOptimWrapper')


def test_amp_keeps_the_loss_scale_of_the_config(project, monkeypatch):
    monkeypatch.setattr(options, 'get_device', lambda: 'cuda')
    cfg = load_config(project.write_config())
    options.enable_amp(cfg)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == ('AmpOptimWrapper', 'dynamic')
    cfg = load_config(project.write_config('optim_wrapper.update(loss_scale=512.0)\n'))
    options.enable_amp(cfg)
    assert cfg.optim_wrapper.loss_scale == 512.0


def test_auto_scale_lr(project, train, refuses):
    refuses(train, [project.write_config(), '--auto-scale-lr'], 'no auto_scale_lr.base_batch_size')
    config = project.write_config('auto_scale_lr = dict(base_batch_size=8, enable=False)\n')
    assert train([config, '--auto-scale-lr']) == 0
    # batch 2 instead of 8
    assert ' lr: 2.5000e-02' in project.log()


@pytest.mark.slow
def test_exit_code_of_the_process(project):
    """After an error; of one that trains to its end, see test_launch_distributed.py."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(Path(__file__).parent)])
    command = [sys.executable, str(root / 'tools/train.py'), project.write_config()]
    env = {**os.environ, 'PYTHONPATH': path}
    (project.data / 'val.json').unlink()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith('tools/train.py: error: data of the config does not exist:')
    assert len(done.stderr.splitlines()) == 3
