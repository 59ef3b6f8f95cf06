"""Unknown types and missing data are found before the first write, with their config keys."""

import json
import re

import pytest
from mmengine.config import Config

from normplug.launch import UserError
from normplug.preflight.data import broken_json_explained
from normplug.preflight.model import build_checked_model


@pytest.mark.parametrize(
    ('line', 'messages'),
    [
        (
            "model['backbone'].update(type='TinyBackbon')",
            ["model.backbone.type: there is no type 'TinyBackbon'", 'did you mean TinyBackbone'],
        ),
        ("model.update(type='Nothing9')", ["model.type: there is no type 'Nothing9'"]),
        (
            "train_dataloader['dataset'].update(type='TinyDatset')",
            ["train_dataloader.dataset.type: there is no type 'TinyDatset'"],
        ),
        (
            "train_dataloader['dataset'].update(pipeline=[dict(type='Flip9')])",
            ["train_dataloader.dataset.pipeline.0.type: there is no type 'Flip9'"],
        ),
        (
            "val_evaluator = dict(type='tinyacuracy')",
            ["val_evaluator.type: there is no type 'tinyacuracy'", 'did you mean TinyAccuracy'],
        ),
        (
            "optim_wrapper['optimizer'].update(type='SDG')",
            ["optim_wrapper.optimizer.type: there is no type 'SDG'", 'SGD'],
        ),
        (
            "optim_wrapper.update(constructor='Mine')",
            ["optim_wrapper.constructor: there is no type 'Mine'"],
        ),
        (
            "custom_hooks = [dict(type='EMAHok')]",
            ["custom_hooks.0.type: there is no type 'EMAHok'", 'EMAHook', 'custom_imports'],
        ),
        ("default_scope = 'mmdett'", ["default_scope = 'mmdett' is not an installed package"]),
    ],
)
def test_unknown_type(project, train, refuses, line, messages):
    refuses(train, [project.write_config(line + '\n')], *messages)


@pytest.mark.parametrize(
    ('transform', 'key'),
    [
        ("dict(type='RandomApply', transforms=[dict(type='Flip9')])", 'transforms.0.type'),
        ("dict(type='RandomChoiceResize', scales=[4], resize_type='Flip9')", 'resize_type'),
    ],
)
def test_unknown_type_inside_a_transform(project, train, capsys, transform, key):
    pytest.importorskip('mmcv')
    more = f"""
custom_imports['imports'].append('mmcv.transforms')
train_dataloader['dataset'].update(pipeline=[{transform}])
"""
    assert train([project.write_config(more)]) == 2
    key = f'train_dataloader.dataset.pipeline.0.{key}'
    assert f"{key}: there is no type 'Flip9'" in capsys.readouterr().err


def test_model_option_unknown(project, train, refuses):
    config = project.write_config("model['backbone'].update(depth=3)\n")
    message = 'model cannot be built: TypeError: TinyBackbone.__init__() got an unexpected keyword'
    refuses(train, [config], message, "'depth'; check the key model.backbone")


def test_error_of_the_model_is_chained(project):
    cfg = Config.fromfile(project.write_config("model['backbone'].update(width=-1.5)\n"))
    with pytest.raises(UserError, match='model cannot be built: TypeError') as caught:
        build_checked_model(cfg)
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_norm_that_the_model_calls_otherwise(project):
    pytest.importorskip('mmpretrain')
    cfg = Config.fromfile(project.write_config())
    arch = dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])
    cfg.default_scope = 'mmpretrain'
    cfg.model = dict(type='mmpretrain.ConvNeXt', arch=arch, norm_cfg=dict(type='SN'))
    with pytest.raises(UserError, match=r'^model.norm_cfg.*: .* with data_format=\.\.\.'):
        build_checked_model(cfg)
    cfg.model.norm_cfg = dict(type='LN2d')
    build_checked_model(cfg)


def test_the_part_whose_channels_a_norm_does_not_divide(project):
    pytest.importorskip('mmdet')
    cfg = Config.fromfile(project.write_config())
    cfg.default_scope = 'mmdet'
    norm = dict(type='SyncSW', num_pergroup=4)
    backbone = dict(type='mmdet.ResNet', depth=18, stem_channels=8, base_channels=8, norm_cfg=norm)
    neck = dict(type='mmdet.FPN', in_channels=[8, 16, 32, 64], out_channels=6, num_outs=4)
    head = dict(type='mmdet.RetinaHead', num_classes=2, in_channels=6, feat_channels=6)
    model = dict(type='mmdet.RetinaNet', backbone=backbone, neck=neck, bbox_head=head)
    cfg.model = dict(model, neck=dict(neck, norm_cfg=norm))
    message = "norm_cfg=dict(type='SyncSW'): num_pergroup=4 does not divide the 6 channels"
    with pytest.raises(UserError, match=f'^model.neck.norm_cfg: {re.escape(message)}'):
        build_checked_model(cfg)
    norms = [dict(where='backbone.*', norm_cfg=dict(type='SyncSW', num_pergroup=3))]
    model |= dict(type='NormPlacement', model_type='RetinaNet', norms=norms)
    cfg.model = dict(model, backbone=dict(backbone, norm_cfg=dict(type='BN')))
    at = r'^model.norms.0.norm_cfg: .* the 8 channels: .* \(at the norm layer backbone.bn1\)'
    with pytest.raises(UserError, match=at):
        build_checked_model(cfg)


def test_data_root_missing(project, train, refuses):
    argv = [project.write_config(), '--cfg-options', 'train_dataloader.dataset.data_root=no/where']
    refuses(train, argv, 'train_dataloader.dataset.data_root: no/where', '--cfg-options train_data')


def test_split_missing(project, train, run_test, refuses):
    (project.data / 'val.json').unlink()
    config = project.write_config()
    refuses(train, [config], f'val_dataloader.dataset.ann_file: {project.data}/val.json')
    checkpoint = project.save_checkpoint('a.pth')
    refuses(run_test, [config, checkpoint], 'test_dataloader.dataset.ann_file: ')


def test_image_folder_missing_inside_wrappers(project, train, refuses):
    (project.data / 'images').rmdir()
    more = """
inner = train_dataloader['dataset']
concat = dict(type='ConcatDataset', datasets=[inner, inner])
train_dataloader['dataset'] = dict(type='RepeatDataset', times=2, dataset=concat)
"""
    key = 'train_dataloader.dataset.dataset.datasets.1.data_prefix.img_path'
    refuses(train, [project.write_config(more)], f'{key}: {project.data}/images')


def test_annotations_of_the_evaluator_missing(project, train, refuses):
    pytest.importorskip('mmdet')
    more = "val_evaluator = [val_evaluator, dict(type='mmdet.CocoMetric', ann_file='gone.json')]\n"
    refuses(train, [project.write_config(more)], 'val_evaluator.1.ann_file: gone.json')


def test_digits_missing(project, train, refuses):
    argv = [project.write_config(), '--cfg-options', 'train_dataloader.dataset.data_root=x/digits']
    refuses(train, argv, 'Write the digits with `python -m normplug make-digits`')


def test_remote_data_is_not_looked_for(project, train):
    more = "val_evaluator = dict(type='TinyAccuracy', collect_dir=None)\n"
    argv = [project.write_config(more), '--cfg-options', 'train_cfg.max_iters=1']
    assert train([*argv, 'val_dataloader.dataset.data_prefix.img_path=s3://bucket/images']) == 0


def test_work_dir_is_a_file(project, train, refuses, tmp_path):
    taken = tmp_path / 'taken'
    taken.write_text('mine')
    refuses(train, [project.write_config(), '--work-dir', taken], 'is a file; name a folder')


def test_truncated_annotations_are_named(tmp_path):
    (tmp_path / 'good.json').write_text('{}')
    (tmp_path / 'cut.json').write_text('{"images": [')
    good, cut = ({'data_root': str(tmp_path), 'ann_file': f'{n}.json'} for n in ('good', 'cut'))
    cfg = Config({'train_dataloader': {'dataset': good}, 'val_dataloader': {'dataset': cut}})
    with (
        pytest.raises(UserError, match=r'val_dataloader\.dataset\.ann_file: .*cut\.json is no'),
        broken_json_explained(cfg),
    ):
        json.loads('{')


def test_json_errors_of_other_files_pass_through(tmp_path):
    with pytest.raises(json.JSONDecodeError), broken_json_explained(Config({})):
        json.loads('{')
