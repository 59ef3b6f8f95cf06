"""tools/batch_average.py."""

import pytest
import torch
from launch_tiny import TinyModel

from tests.launch.conftest import _main


@pytest.fixture
def recompute():
    return _main('batch_average')


@pytest.fixture
def checkpoint(project):
    meta = {'iter': 4, 'dataset_meta': {'classes': ('a', 'b')}}
    return project.save_checkpoint('a.pth', meta=meta, optimizer={'state': {}})


def run(recompute, project, checkpoint, *options, more=''):
    output = project.folder / 'new' / 'b.pth'
    argv = [project.write_config(more), checkpoint, str(output), *options]
    assert recompute(argv) == 0
    return torch.load(output, weights_only=True)


@pytest.mark.parametrize(('options', 'samples'), [((), 16), (('--batches', '3'), 6)])
def test_statistics_of_the_training_data(recompute, project, checkpoint, capsys, options, samples):
    written = run(recompute, project, checkpoint, *options)
    assert f'{samples // 2} batches a process' in capsys.readouterr().out
    before = torch.load(checkpoint, weights_only=True)['state_dict']
    after = written['state_dict']
    assert list(written) == ['state_dict', 'meta']
    assert written['meta']['dataset_meta'] == {'classes': ('a', 'b')}
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {'backbone.bn.running_mean', 'backbone.bn.running_var'}
    if samples == 16:  # all of them
        x = torch.arange(16.0)[:, None]
        features = x @ before['backbone.fc.weight'].T + before['backbone.fc.bias']
        torch.testing.assert_close(after['backbone.bn.running_mean'], features.mean(0))
        torch.testing.assert_close(after['backbone.bn.running_var'], features.var(0))


def test_the_same_every_time(recompute, project, checkpoint):
    first = run(recompute, project, checkpoint, '--batches', '3')
    (project.folder / 'new' / 'b.pth').unlink()
    torch.rand(3)
    second = run(recompute, project, checkpoint, '--batches', '3')
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]), name


def test_the_output_is_tested(recompute, project, checkpoint, run_test):
    run(recompute, project, checkpoint)
    assert run_test([str(project.config), str(project.folder / 'new' / 'b.pth')]) == 0


def test_refuses(recompute, project, checkpoint, refuses):
    config, output = project.write_config(), project.folder / 'b.pth'
    refuses(recompute, [config, checkpoint, checkpoint], 'output:', 'exists; name another file')
    refuses(recompute, [config, checkpoint, output, '--batches', '0'], 'must be at least 1, not 0')
    refuses(recompute, [config, project.folder / 'c.pth', output], 'c.pth does not exist')
    other = project.save_checkpoint('other.pth', width=5)
    refuses(recompute, [config, other, output], 'of another model than the config')
    refuses(recompute, [config, config, output], 'tiny.py')


def test_refuses_weights_of_infinite_features(recompute, project, refuses):
    state = TinyModel({'type': 'TinyBackbone'}).state_dict()
    state['backbone.fc.weight'][0] = float('inf')
    path = project.folder / 'inf.pth'
    torch.save({'state_dict': state}, path)
    argv = [project.write_config(), path, project.folder / 'b.pth']
    refuses(recompute, argv, 'inf.pth: the input of 1 norms, backbone.bn first, has NaN')


def test_refuses_data_without_a_pipeline_for_validation(recompute, project, checkpoint, refuses):
    more = (
        'train_dataloader["dataset"]["pipeline"] = []\n'
        'val_dataloader = test_dataloader = val_cfg = test_cfg = None\n'
        'val_evaluator = test_evaluator = None\n'
    )
    argv = [project.write_config(more), checkpoint, project.folder / 'b.pth']
    refuses(recompute, argv, 'neither val_dataloader nor test_dataloader has a pipeline')


def test_refuses_a_model_without_statistics(recompute, project, refuses):
    from mmengine.registry import MODELS
    from torch import nn

    @MODELS.register_module(force=True)
    class PlainBackbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(1, 4)

    path = project.folder / 'plain.pth'
    torch.save({'state_dict': TinyModel({'type': 'PlainBackbone'}).state_dict()}, path)
    config = project.write_config('model["backbone"] = dict(type="PlainBackbone")\n')
    refuses(recompute, [config, path, project.folder / 'b.pth'], 'no norm whose running statistics')
