"""Files that are no checkpoint, or not the model's: refused before anything is written."""

import os
from pathlib import Path

import pytest
import torch
from bad_input_projects import Row, contents
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module()
class NormBackbone(BaseModule):
    """Of launch_tiny's TinyModel, with any norm."""

    def __init__(self, norm_cfg, width=4, init_cfg=None):
        super().__init__(init_cfg)
        self.fc = nn.Linear(1, width)
        self.bn = MODELS.build({**norm_cfg, 'num_features': width})

    def forward(self, x):
        return self.bn(self.fc(x)).relu()


class RunsCode:
    """Pickles as the call of ``os.mkdir``."""

    def __reduce__(self):
        return os.mkdir, ('executed',)


def file(content):
    def make(p):
        path = p.folder / 'given.pth'
        path.write_bytes(content)
        return path

    return make


def saved(make_object):
    def make(p):
        torch.save(make_object(p), p.folder / 'given.pth')
        return p.folder / 'given.pth'

    return make


def weights(p):
    return torch.load(p.save_checkpoint('weights.pth'), weights_only=True)['state_dict']


def cut(size):
    def make(p):
        path = p.folder / 'given.pth'
        path.write_bytes(Path(p.save_checkpoint('whole.pth')).read_bytes()[:size])
        return path

    return make


def folder(p):
    (p.folder / 'given.pth').mkdir()
    return p.folder / 'given.pth'


GIVEN = 'given.pth'
NAN = float('nan')
# Whoever asks for them: resume, load_from, a test, init_cfg.
UNREADABLE = [
    Row('a pickle that runs code', saved(lambda p: {'state_dict': RunsCode()}),
        (f'{GIVEN} is refused: it asks for posix.mkdir', 'was not executed', 'tensors alone')),
    Row('a whole model', saved(lambda p: nn.Linear(2, 2)),
        (f'{GIVEN} is refused: it asks for torch.nn', 'save its tensors alone')),
    Row('truncated', cut(500),
        (f'{GIVEN} cannot be loaded: it is not a complete checkpoint: truncated', 'Copy it again')),
    Row('empty', cut(0), (f'{GIVEN} cannot be loaded: it is not a complete', 'an earlier one')),
    Row('a text', file(b'epoch 1: 0.5\n'), (f'{GIVEN} cannot be loaded', 'another kind of file')),
    Row('a web page', file(b'<!DOCTYPE html>\n<html><title>404</title></html>'),
        (f'{GIVEN} cannot be loaded: it is a web page', 'Download it again')),
    Row('a folder', folder, (f'{GIVEN} is a folder', 'name the file in it')),
    Row('missing', lambda p: p.folder / GIVEN, (f'{GIVEN} does not exist', 'name another file')),
    Row('no weights', saved(lambda p: {'state_dict': {}}), (f'{GIVEN} holds no state_dict',)),
    Row('weights under another key', saved(lambda p: {'net': weights(p)}),
        (f'{GIVEN} holds no state_dict (only net)', "torch.save({'state_dict':")),
    Row('NaN', saved(lambda p: weights(p) | {'backbone.bn.bias': torch.tensor(NAN)}),
        (f'{GIVEN} has NaN in 1 tensors, backbone.bn.bias first', 'take an earlier checkpoint')),
    Row('a list', saved(lambda p: [1, 2]), (f'{GIVEN} holds no state_dict', 'save the weights')),
]  # fmt: skip


def init_cfg(path, more=''):
    return (
        f"model['backbone'].update(init_cfg=dict(type='Pretrained', checkpoint='{path}'{more}))\n"
    )


@pytest.mark.parametrize('asked_by', ['--resume', 'load_from', 'checkpoint', 'init_cfg'])
@pytest.mark.parametrize('row', UNREADABLE, ids=lambda row: row.name)
def test_unreadable(tiny, tool, refused, row, asked_by):
    path = str(row.make(tiny))
    key = {'init_cfg': 'model.backbone.init_cfg.checkpoint'}.get(asked_by, asked_by)
    if asked_by == 'checkpoint':
        refused(tool('test'), [tiny.write_config(), path], (f'{key}: ', *row.messages))
    else:
        lines = {'load_from': f"load_from = '{path}'\n", 'init_cfg': init_cfg(path)}
        argv = ['--resume', path] if asked_by == '--resume' else []
        config = tiny.write_config(lines.get(asked_by, ''))
        refused(tool('train'), [config, *argv], (f'{key}: ', *row.messages))
    assert not (tiny.folder / 'executed').exists()


def norm(name):
    return f"model['backbone'] = dict(type='NormBackbone', norm_cfg=dict(type='{name}'))\n"


# `make` returns the tool, lines of the config and arguments.
OTHERS = [
    Row('test: another architecture',
        lambda p: ('test', '', [p.save_checkpoint(GIVEN, width=6)]),
        (f'{GIVEN} is of another model', '7 of another shape', 'the checkpoint was trained with')),
    Row('test: BN weights in a model with SN',
        lambda p: ('test', norm('SN'), [p.save_checkpoint(GIVEN)]),
        (f'{GIVEN} is of another model', 'missing in the checkpoint: backbone.bn.mean_weight')),
    Row('resume: BN weights in a model with SN',
        lambda p: ('train', norm('SN'), ['--resume', p.save_checkpoint(GIVEN)]),
        ('--resume: ', f'{GIVEN} is of another model', 'backbone.bn.mean_weight')),
    Row('resume: weights only',
        lambda p: ('train', '', ['--resume', p.save_checkpoint(GIVEN)]),
        ('holds weights only (no epoch, iter', '--cfg-options load_from=')),
    Row('resume: a bare state dict',
        lambda p: ('train', '', ['--resume', str(saved(weights)(p))]),
        ('holds weights only', '--cfg-options load_from=')),
    Row('resume: nothing there', lambda p: ('train', '', ['--resume']),
        ('has no checkpoint', 'start without --resume')),
    Row('load_from: nothing fits',
        lambda p: ('train', f"load_from = '{saved(lambda p: {'conv.w': torch.ones(1)})(p)}'\n", []),
        ('load_from: no key backbone.* of', 'init_cfg')),
    Row('init_cfg: a prefix that is not there',
        lambda p: ('train', init_cfg(p.save_checkpoint(GIVEN), ", prefix='neck'"), []),
        ('model.backbone.init_cfg.checkpoint: no key of', 'below prefix neck.', 'init_cfg.prefix')),
    Row('init_cfg: no prefix where one is needed',
        lambda p: ('train', init_cfg(p.save_checkpoint(GIVEN)), []),
        ('model.backbone.init_cfg.checkpoint: no key of', "prefix='backbone.'")),
]  # fmt: skip


@pytest.mark.parametrize('row', OTHERS, ids=lambda row: row.name)
def test_of_another_model(tiny, tool, refused, row):
    name, lines, argv = row.make(tiny)
    refused(tool(name), [tiny.write_config(lines), *argv], row.messages)


def test_a_bare_state_dict_can_be_tested_and_loaded(tiny, tool):
    path = saved(weights)(tiny)
    before = contents(tiny.folder)
    assert tool('test')([tiny.write_config(), str(path)]) == 0
    assert contents(tiny.folder)[GIVEN] == before[GIVEN]
    config = tiny.write_config(f"load_from = '{path}'\nexperiment_name += '_2'\n")
    assert tool('train')([config]) == 0
    assert '8 of 8 tensors used' in tiny.log()
