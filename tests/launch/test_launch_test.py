"""tools/test.py's own options."""

import pickle

import pytest
from mmengine.config import Config, ConfigDict

from normplug.launch import load_config
from normplug.launch.options import enable_tta, save_pictures, save_predictions


@pytest.fixture
def checkpoint(project):
    return project.save_checkpoint('a.pth')


def test_out_dumps_every_prediction(project, checkpoint, run_test):
    out = project.folder / 'new' / 'predictions.pkl'
    assert run_test([project.write_config(), checkpoint, '--out', str(out)]) == 0
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 4
    assert predictions[0]['scores'].shape == (2,)


def test_out_must_be_a_pickle(project, checkpoint, run_test, refuses):
    argv = [project.write_config(), checkpoint, '--out', 'folder']
    refuses(run_test, argv, '--out folder', 'must end in .pkl')


def test_out_of_detection_and_segmentation():
    cfg = Config({'default_scope': 'mmdet', 'test_evaluator': {'type': 'CocoMetric'}})
    save_predictions(cfg, 'a.pkl')
    assert [m['type'] for m in cfg.test_evaluator] == ['CocoMetric', 'mmdet.DumpDetResults']
    cfg = Config({'default_scope': 'mmseg', 'test_evaluator': {'type': 'IoUMetric'}})
    save_predictions(cfg, 'labels')
    assert cfg.test_evaluator.output_dir == 'labels'
    save_predictions(cfg, 'a.pkl')
    assert [m['type'] for m in cfg.test_evaluator] == ['IoUMetric', 'mmengine.DumpResults']


@pytest.mark.parametrize(
    ('scope', 'hook', 'expected'),
    [
        ('mmdet', 'DetVisualizationHook', {'draw': True, 'test_out_dir': True}),
        ('mmpretrain', 'VisualizationHook', {'enable': True, 'out_dir': True}),
        ('mmseg', 'SegVisualizationHook', {'draw': True}),
    ],
)
def test_show_dir(scope, hook, expected, tmp_path):
    pytest.importorskip(scope)
    cfg = Config(
        {
            'default_scope': scope,
            'default_hooks': {'visualization': {'type': hook}},
            'visualizer': {'type': 'Visualizer'},
        }
    )
    folder = str(tmp_path / 'shown')
    save_pictures(cfg, folder)
    hook_cfg = dict(cfg.default_hooks.visualization)
    assert (hook_cfg.pop('type'), hook_cfg.pop('interval')) == (hook, 1)
    assert hook_cfg == {k: folder if k.endswith('dir') else v for k, v in expected.items()}
    assert (cfg.visualizer.get('save_dir') == folder) == (scope == 'mmseg')


def test_show_dir_needs_the_hook(project, checkpoint, run_test, refuses):
    argv = [project.write_config(), checkpoint, '--show-dir', 'shown']
    refuses(run_test, argv, '--show-dir', 'no default_hooks.visualization', 'DetVisualizationHook')


def test_tta_needs_its_keys(project, checkpoint, run_test, refuses):
    refuses(run_test, [project.write_config(), checkpoint, '--tta'], '--tta', 'no tta_model')
    config = project.write_config("tta_model = dict(type='TinyTTA')\n")
    refuses(run_test, [config, checkpoint, '--tta'], '--tta', 'no tta_pipeline')


def test_tta_wraps_model_and_pipeline(project, run_test, refuses):
    more = "tta_model = dict(type='TinyTTA')\ntta_pipeline = [dict(type='Views')]\n"
    more += "inner = test_dataloader['dataset']\n"
    more += "test_dataloader['dataset'] = dict(type='RepeatDataset', dataset=inner)\n"
    cfg = load_config(project.write_config(more))
    enable_tta(cfg)
    assert cfg.model.type == 'TinyTTA'
    assert cfg.model.module.type == 'TinyModel'
    assert cfg.test_dataloader.dataset.dataset.pipeline == [ConfigDict(type='Views')]


def test_tta_checks_the_checkpoint_against_the_model_inside(project, checkpoint, run_test, refuses):
    config = project.write_config("tta_model = dict(type='TinyTTA')\ntta_pipeline = []\n")
    wide = project.save_checkpoint('wide.pth', width=6)
    refuses(run_test, [config, wide, '--tta'], '7 of another shape: backbone.fc.weight')
