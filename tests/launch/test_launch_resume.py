"""The tools: --resume after any kill, no place for checkpoints, and a training that must stop."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from normplug.data.build import DigitsSettings, build_digits
from normplug.data.scene import SceneSettings
from normplug.resume import storage
from tests.hooks import tiny_training as tiny

ROOT = Path(__file__).parents[2]
RESUMABLE = """
default_hooks.update(
    checkpoint=dict(type='ResumableCheckpointHook', interval=2, by_epoch=False)
)
custom_hooks = [dict(type='SampleSeedHook'), dict(type='NonFiniteLossHook')]
"""


@pytest.fixture
def trained(project, train):
    """A project with iter_2.pth and iter_4.pth, the end of its training."""
    assert train([project.write_config(RESUMABLE)]) == 0
    return project


def resumed(project, train):
    """Train to iteration 6; the log."""
    name = f'experiment_name={project.folder.name}_again'
    argv = [str(project.config), '--resume', '--cfg-options', 'train_cfg.max_iters=6', name]
    assert train(argv) == 0
    assert (project.work_dir / 'last_checkpoint').read_text() == str(
        project.work_dir / 'iter_6.pth'
    )
    return project.log()


def test_resumes_from_last_checkpoint_without_a_word(trained, train):
    log = resumed(trained, train)
    assert 'resumed epoch: 0, iter: 4' in log
    assert '--resume:' not in log


@pytest.mark.parametrize(
    ('break_it', 'reason'),
    [
        (lambda work: (work / 'last_checkpoint').unlink(), 'last_checkpoint is missing'),
        (lambda work: (work / 'last_checkpoint').write_text(''), 'last_checkpoint is empty'),
        (
            lambda work: (work / 'last_checkpoint').write_text('/gone/iter_8.pth'),
            'last_checkpoint names /gone/iter_8.pth, which does not exist',
        ),
    ],
    ids=['missing', 'empty', 'moved'],
)
def test_resumes_from_the_newest_when_last_checkpoint_is_of_no_use(
    trained, train, break_it, reason
):
    break_it(trained.work_dir)
    log = resumed(trained, train)
    path = trained.work_dir / 'iter_4.pth'
    assert f'{reason}; resuming from {path}, the last whole one' in log
    assert 'resumed epoch: 0, iter: 4' in log


def test_resumes_from_the_last_whole_one(trained, train):
    """What mmengine's own hook leaves, killed while it writes."""
    path = trained.work_dir / 'iter_4.pth'
    path.write_bytes(path.read_bytes()[:-500])
    log = resumed(trained, train)
    assert (
        f'last_checkpoint names {path}, which is truncated or holds weights only; resuming from'
        in log
    )
    assert 'resumed epoch: 0, iter: 2' in log


def test_nothing_to_resume(trained, train, refuses):
    for path in trained.work_dir.glob('*.pth'):
        path.write_bytes(b'')
    refuses(train, [trained.config, '--resume'], 'has no checkpoint to resume', 'is truncated')


def test_work_dir_that_cannot_be_written_to(project, train, refuses):
    file = project.folder / 'file'
    file.touch()
    config = project.write_config(RESUMABLE)
    refuses(
        train,
        [config, '--work-dir', file / 'work'],
        f'--work-dir: nothing can be written to {file}',
    )
    argv = [config, '--cfg-options', f'default_hooks.checkpoint.out_dir={file}/checkpoints']
    refuses(train, argv, 'default_hooks.checkpoint.out_dir: no place for checkpoints', 'is a file')


def test_no_room_for_a_checkpoint(project, train, refuses, monkeypatch):
    # 8 + 8 weights and biases with the momentum none, 5 buffers and the statistics
    monkeypatch.setattr('shutil.disk_usage', lambda path: types.SimpleNamespace(free=100))
    refuses(
        train,
        [project.write_config(RESUMABLE)],
        '--work-dir: no place for checkpoints',
        'MB are free',
    )


def test_a_full_disk_ends_the_training_with_one_message(project, train, capsys, monkeypatch):
    monkeypatch.setattr(storage, 'write', storage.write)  # restored after the test
    tiny.fill_the_disk(None, write=3)
    assert train([project.write_config(RESUMABLE)]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    path = project.work_dir / 'iter_4.pth'
    assert error.startswith(
        f'tools/train.py: training stopped: [Errno 27] {path} cannot be written'
    )
    monkeypatch.undo()
    assert 'resumed epoch: 0, iter: 2' in resumed(project, train)


def test_a_loss_of_nan_ends_the_training_with_one_message(project, train, capsys):
    config = project.write_config(
        RESUMABLE + "optim_wrapper.update(optimizer=dict(type='SGD', lr=1e38))\n"
    )
    assert train([config]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(
        'tools/train.py: training stopped: the loss is NaN or Inf in iteration '
    )
    assert 'backbone' in error


FOREIGN = """
from mmengine.config import Config
from mmengine.runner import Runner

if __name__ == '__main__':
    import sys
    cfg = Config.fromfile(sys.argv[1])
    cfg.resume = len(sys.argv) > 2
    Runner.from_cfg(cfg).train()
"""


@pytest.mark.slow
def test_another_project_with_mmengine_alone(project):
    """Their script knows nothing of normplug: the config names the import and the hooks."""
    script = project.folder / 'train.py'
    script.write_text(FOREIGN)
    imports = RESUMABLE + "custom_imports = dict(imports=['launch_tiny', 'normplug'])\n"
    config = project.write_config(imports)
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    env = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, str(script), config]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert len(tiny.load(project.work_dir)['random_states']) == 1
    project.write_config(imports + 'train_cfg.update(max_iters=6)\n')
    subprocess.run([*command, '--resume'], env=env, check=True, capture_output=True)
    assert tiny.load(project.work_dir)['meta']['iter'] == 6


DIGITS = """
_base_ = '{root}/configs/faster_rcnn/faster-rcnn_r18-w32_fpn_sn_digits.py'
model = dict(
    backbone=dict(init_cfg=None, base_channels=8, stem_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(96, 96), ratio_range=(0.7, 1.3), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(80, 80)),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    num_workers={workers},
    persistent_workers={workers} > 0,
    dataset=dict(data_root='{data}/coco/', pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(data_root='{data}/coco/'))
val_evaluator = dict(ann_file='{data}/coco/annotations/instances_val.json')
train_cfg = dict(max_epochs=3, val_interval=1)
custom_hooks = [dict(type='SampleSeedHook'), dict(type='NonFiniteLossHook'){kill}]
custom_imports = dict(imports=['normplug', 'tests.hooks.tiny_training'])
"""


@pytest.mark.slow
def test_a_detector_killed_and_resumed_is_the_same_to_the_last_bit(tmp_path, train, capsys):
    """Faster R-CNN's samplers, and augmentation by numpy and python, draw all the way."""
    pytest.importorskip('mmdet')
    data = tmp_path / 'digits'
    settings = DigitsSettings(train=8, val=2, scene=SceneSettings(size=96))
    build_digits(data, ['coco'], settings, log=lambda line: None)
    config = tmp_path / 'config.py'

    def argv(name, *options, kill='', workers=0):
        config.write_text(DIGITS.format(root=ROOT, data=data, kill=kill, workers=workers))
        return [str(config), '--work-dir', str(tmp_path / name), *options]

    assert train(argv('alone')) == 0
    assert capsys.readouterr().err == ''
    # The one that is killed has a process of its own.
    command = [sys.executable, str(ROOT / 'tools/train.py')]
    command += argv('killed', kill=", dict(type='KillHook', iteration=9)", workers=2)
    threads = str(torch.get_num_threads())
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': threads}
    assert subprocess.run(command, env=env, capture_output=True).returncode == -signal.SIGKILL
    assert tiny.load(tmp_path / 'killed')['meta']['epoch'] == 2
    assert train(argv('killed', '--resume')) == 0
    tiny.assert_same_training(tiny.load(tmp_path / 'alone'), tiny.load(tmp_path / 'killed'))
