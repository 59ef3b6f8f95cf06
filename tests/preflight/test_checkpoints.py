"""What the tools accept as a checkpoint; nothing is written otherwise."""

import json
import shutil

import pytest
import torch
from launch_tiny import TinyModel

from normplug.launch import build_runner, load_config
from normplug.preflight.checkpoint import compare
from normplug.reports.runs import read_run
from normplug.whitened import WNNLinear


@pytest.fixture
def trained(project, train):
    """A project that has been trained for 4 iterations."""
    assert train([project.write_config()]) == 0
    return project


MORE = ['--cfg-options', 'train_cfg.max_iters=6', 'experiment_name=more']


@pytest.mark.parametrize('named', [False, True], ids=['auto', 'path'])
def test_resume_continues(trained, train, named):
    resume = ['--resume', str(trained.work_dir / 'iter_4.pth')] if named else ['--resume']
    assert train([str(trained.config), *resume, *MORE]) == 0
    assert 'resumed epoch: 0, iter: 4' in trained.log()
    checkpoint = torch.load(trained.work_dir / 'iter_6.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 6


def test_resume_with_nothing_to_resume(project, train, refuses):
    argv = [project.write_config(), '--resume']
    refuses(train, argv, f'work_dir {project.work_dir} has no checkpoint', 'start without --resume')
    assert not project.work_dir.exists()


def test_resume_of_another_model(trained, train, refuses):
    other = ['--cfg-options', 'model.backbone.width=6']
    path = str(trained.work_dir / 'iter_4.pth')
    refuses(
        train,
        [trained.config, '--resume', path, *other],
        f'--resume: {path} is of another model',
        '7 of another shape: backbone.fc.weight (4, 1; model: 6, 1), backbone.fc.bias (4; ',
        'Use the config that the checkpoint was trained with',
    )
    refuses(train, [trained.config, '--resume', *other], 'is of another model')


def test_resume_checkpoint_gone_or_truncated(trained, train, refuses):
    path = trained.work_dir / 'iter_4.pth'
    argv = [trained.config, '--resume', str(path)]
    path.write_bytes(path.read_bytes()[:500])
    refuses(train, argv, f'--resume: checkpoint {path} cannot be loaded', 'truncated')
    path.unlink()
    refuses(train, argv, f'checkpoint {path} does not exist')


def test_resume_from_weights_only(project, train, refuses):
    path = project.save_checkpoint('weights.pth')
    refuses(
        train,
        [project.write_config(), '--resume', path],
        f'{path} holds weights only (no epoch, iter, message_hub, optimizer)',
        f'--cfg-options load_from={path}',
    )


def test_load_from_reports_what_was_used(project, train):
    checkpoint = torch.load(project.save_checkpoint('a.pth'), weights_only=True)
    state = checkpoint['state_dict']
    del state['backbone.bn.running_var']
    state['neck.weight'] = torch.zeros(3)
    state['head.weight'] = torch.zeros(7, 4)
    torch.save(checkpoint, project.folder / 'a.pth')
    assert train([project.write_config(f"load_from = '{project.folder}/a.pth'\n")]) == 0
    log = project.log()
    assert f'load_from {project.folder}/a.pth: 6 of 8 tensors used' in log
    assert '1 missing in the checkpoint: backbone.bn.running_var\n' in log
    assert '1 unknown to the model: neck.weight\n' in log
    assert '1 of another shape: head.weight (7, 4; model: 2, 4)' in log


def test_load_from_without_any_backbone_key(project, train, refuses):
    path = project.save_checkpoint('a.pth')
    head = {'head.weight': torch.zeros(2, 4), 'head.bias': torch.zeros(2)}
    torch.save({'state_dict': head}, path)
    config = project.write_config(f"load_from = '{path}'\n")
    refuses(train, [config], f'load_from: no key backbone.* of {path} fits')


def test_load_from_missing(project, train, refuses):
    config = project.write_config("load_from = 'gone.pth'\n")
    refuses(train, [config], 'load_from: checkpoint gone.pth does not exist')


def _pretrained(project, path, prefix):
    return project.write_config(
        f"model['backbone'].update(init_cfg=dict(type='Pretrained', checkpoint='{path}', "
        f'prefix={prefix!r}))\n'
    )


def test_pretrained_backbone_is_reported(project, train):
    path = project.save_checkpoint('a.pth')
    assert train([_pretrained(project, path, 'backbone.')]) == 0
    key = 'model.backbone.init_cfg.checkpoint'
    assert f'{key} {path}: 6 of 6 tensors used' in project.log()


@pytest.mark.parametrize(
    ('prefix', 'message'), [(None, 'no key of'), ('neck', 'below prefix neck.')]
)
def test_pretrained_backbone_without_any_key(project, train, refuses, prefix, message):
    path = project.save_checkpoint('a.pth')
    config = _pretrained(project, path, prefix)
    refuses(train, [config], 'model.backbone.init_cfg.checkpoint: no key of', message, path)


def test_pretrained_backbone_missing(project, train, refuses):
    config = _pretrained(project, 'gone.pth', None)
    refuses(
        train, [config], 'model.backbone.init_cfg.checkpoint: checkpoint gone.pth does not exist'
    )


LIGHT = {'gamma': [-0.9, 0.9]}


def record(project, **changes):
    """The data as make_digits describes them."""
    made = {'format': 'coco', 'version': 1, 'seed': 0, 'scene': {'light': LIGHT}, **changes}
    (project.data / 'digits.json').write_text(json.dumps(made))


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({}, None),
        ({'format': 'classification', 'scene': {'light': LIGHT, 'size': 64}, 'train': 9}, None),
        ({'format': 'cityscapes_night', 'scene': {'light': None}}, None),
        ({'seed': 3}, 'seed 0, not 3'),
        ({'version': 2}, 'version 1, not 2'),
        ({'scene': {'size': 64}}, 'with light'),
        ({'scene': {'light': {}}}, 'with light'),
        ({'scene': {'light': {'gamma': [0, 0]}}, 'seed': 1}, 'seed 0, not 1; another light'),
    ],
)
@pytest.mark.parametrize('key', ['load_from', 'init_cfg'])
def test_pretraining_on_other_digits_is_told(project, train, key, changes, told):
    """Checkpoints know theirs; old scenes had no light in the record, or None."""
    hook = "default_hooks['checkpoint']['type'] = 'ResumableCheckpointHook'\n"
    record(project)
    assert train([project.write_config(hook)]) == 0
    path = project.folder / 'pretrained.pth'
    (project.work_dir / 'iter_4.pth').rename(path)
    shutil.rmtree(project.work_dir)
    record(project, **changes)
    config = project.write_config(f"load_from = '{path}'\n")
    if key == 'init_cfg':
        config = _pretrained(project, path, 'backbone.')
    assert train([config, '--cfg-options', 'experiment_name=after']) == 0
    said = 'WARNING: its training saw other digits than this one reads'
    assert (said in project.log()) == (told is not None)
    assert f'{said} ({told})' in project.log() or told is None


@pytest.mark.parametrize(
    'asked_by', ['load_from', '--resume', 'model.backbone.init_cfg.checkpoint']
)
def test_whitened_weights_are_no_weights_of_a_plain_layer(project, train, refuses, asked_by):
    """They have the same name and shape, and training would go on with another network."""
    path = str(project.folder / 'whitened.pth')
    model = TinyModel({'type': 'TinyBackbone'})
    model.backbone.fc = WNNLinear(1, 4)
    torch.save({'state_dict': model.state_dict()}, path)
    argv = {
        'load_from': lambda: [project.write_config(f"load_from = '{path}'\n")],
        '--resume': lambda: [project.write_config(), '--resume', path],
    }.get(asked_by, lambda: [_pretrained(project, path, 'backbone.')])()
    told = f'{asked_by}: {path} has whitened weights for 1 layers that are Linear in the model ('
    refuses(train, argv, told, 'fc), ', 'conv_cfg')


def test_test_evaluates_the_checkpoint(project, run_test):
    path = project.save_checkpoint('a.pth')
    assert run_test([project.write_config(), path]) == 0
    assert 'accuracy:' in project.log()


def test_test_refuses_other_checkpoints(project, run_test, refuses):
    config = project.write_config()
    wide = project.save_checkpoint('wide.pth', width=6)
    refuses(
        run_test, [config, wide], f'checkpoint: {wide} is of another model', '7 of another shape'
    )
    foreign = str(project.folder / 'foreign.pth')
    torch.save({'state_dict': {f'conv{i}.weight': torch.zeros(1) for i in range(9)}}, foreign)
    refuses(
        run_test,
        [config, foreign],
        '8 missing in the checkpoint: backbone.fc.weight, ',
        '9 unknown to the model: conv0.weight, conv1.weight, conv2.weight, conv3.weight, ...',
    )
    refuses(run_test, [config, 'gone.pth'], 'checkpoint gone.pth does not exist')
    empty = str(project.folder / 'empty.pth')
    torch.save({'state_dict': {}}, empty)
    refuses(run_test, [config, empty], f'{empty} holds no state_dict')
    text = project.folder / 'text.pth'
    text.write_text('not a checkpoint')
    refuses(run_test, [config, text], f'checkpoint {text} cannot be loaded')
    assert not project.work_dir.exists()


def test_test_does_not_resume(project, run_test):
    path = project.save_checkpoint('a.pth')
    assert run_test([project.write_config('resume = True\n'), path]) == 0


def test_compare_strips_the_prefix_of_parallel_wrappers_and_bn_counters():
    model = TinyModel({'type': 'TinyBackbone'})
    state = {f'module.{k}': v for k, v in model.state_dict().items() if 'batches' not in k}
    report = compare(model, {'state_dict': state})
    assert report.differences() == []
    assert len(report.used) == 8


@pytest.mark.parametrize('main_process', [True, False])
def test_one_rank_writes_the_metrics(project, monkeypatch, main_process):
    """All ranks have them, and the file is one."""
    monkeypatch.setattr('normplug.launch.runner.is_main_process', lambda: main_process)
    cfg = load_config(str(project.config))
    cfg.load_from = project.save_checkpoint('given.pth')
    build_runner(cfg, 'test').test()
    written = [json.loads(path.read_text()) for path in project.work_dir.glob('*/*.json')]
    assert ['accuracy' in metrics for metrics in written] == [True] * main_process


def test_resuming_makes_up_for_the_last_evaluation(trained, train):
    """As after a stop between the last checkpoint and its evaluation."""
    evaluated = list(trained.work_dir.glob('*/vis_data/scalars.json'))
    for path in evaluated:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text(''.join(line for line in lines if '"loss"' in line))
    assert read_run(trained.work_dir).val == []
    again = ['--resume', '--cfg-options', 'experiment_name=again']
    assert train([str(trained.config), *again]) == 0
    run = read_run(trained.work_dir)
    assert len(run.val) == 1
    assert 'accuracy' in run.val[0]
    assert run.train[-1]['iter'] == 4
