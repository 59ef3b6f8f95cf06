"""Names, paths, classes, functions and lazy objects as types."""

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS, OPTIMIZERS

import normplug
from normplug.launch.options import enable_tta, save_predictions
from normplug.preflight import config_types as types
from normplug.preflight.config import load_config
from normplug.preflight.disk import check_disk
from normplug.preflight.types import check_types, keys_of_type


def lazy(**values):
    """A dict as mmengine reads it from a config of classes: nothing is imported yet."""
    config = ConfigDict()
    for name, value in values.items():
        dict.__setitem__(config, name, value)
    return config


SN_FORMS = ['SN', 'normplug.SN', normplug.SN, LazyObject('normplug', 'SN'),
            LazyAttr('SN', LazyObject(['normplug']))]  # fmt: skip


@pytest.mark.parametrize('kind', SN_FORMS)
@pytest.mark.parametrize('scope', [None, 'mmengine'])
def test_all_forms_of_a_type_are_the_same_class(kind, scope):
    assert types.built_by(lazy(type=kind), MODELS, scope) is normplug.SN
    assert types.class_of(dict(type=kind), MODELS, scope) is normplug.SN
    assert types.name_of(kind) == 'SN'
    cfg = Config({'model': {'backbone': {'norm_cfg': lazy(type=kind)}}})
    assert keys_of_type(cfg, 'SN') == ['model.backbone.norm_cfg']


def test_what_is_no_known_type():
    for config in (None, [], {}, {'type': 'Nothing9'}, {'type': 3}):
        assert types.built_by(config, MODELS, None) is None
    assert types.built_by({'type': len}, MODELS, None) is len
    assert types.class_of({'type': len}, MODELS, None) is None


def test_the_scope_of_a_part_goes_first():
    pytest.importorskip('mmdet')
    config = {'type': 'DetVisualizationHook', '_scope_': 'mmdet'}
    assert types.class_of(config, HOOKS, 'mmengine').__module__.startswith('mmdet.')
    assert types.class_of(config, HOOKS, None).__module__.startswith('mmdet.')


def test_no_scope_is_not_the_scope_of_mmengine():
    assert types.scope_of(Config({})) == 'mmengine'
    assert types.scope_of(Config({'default_scope': None})) is None
    assert types.scope_of(Config({'default_scope': 'mmseg'})) == 'mmseg'


def test_whose_model_it_is():
    mmdet = pytest.importorskip('mmdet.models')

    class Mine(mmdet.FCOS):
        pass

    fcos = LazyObject('mmdet.models', 'FCOS')
    for model, package in [
        (lazy(type=fcos), 'mmdet'),
        ({'type': 'mmdet.FCOS'}, 'mmdet'),
        ({'type': 'mmdet.models.FCOS'}, 'mmdet'),
        ({'type': 'FCOS', '_scope_': 'mmdet'}, 'mmdet'),
        ({'type': Mine}, 'mmdet'),
        ({'type': 'NormPlacement', 'model_type': mmdet.FCOS, 'norms': []}, 'mmdet'),
        ({'type': 'DeployedModel', 'deployed': {'type': 'mmdet.models.FCOS'}}, 'mmdet'),
        (
            {
                'type': 'DeployedModel',
                'model_type': 'mmdet.models.FCOS',
                'deployed': {'type': 'normplug.models.placement.norm_placement'},
            },
            'mmdet',
        ),
        ({'type': 'NormPlacement', '_scope_': 'mmdet', 'model_type': 'FCOS'}, 'mmdet'),
        (lazy(type='NormPlacement', model_type=LazyObject('mmdet.models', 'FCSO')), None),
        ({'type': mmdet.DetTTAModel, 'module': {'type': fcos}}, 'mmdet'),
        ({'type': BaseModel}, None),
        (None, None),
    ]:
        assert types.package_of(Config({'default_scope': None, 'model': model})) == package
    cfg = Config({'default_scope': 'mmseg', 'model': {'type': 'EncoderDecoder'}})
    assert types.package_of(cfg) == 'mmseg'
    cfg.model.type = 'mmdet.FCOS'
    assert types.package_of(cfg) == 'mmdet'


def test_written_for_a_dump():
    node = {'a': [lazy(type=LazyObject('mmcv.ops', 'nms'))], 'b': ({'type': normplug.SN}, len, 3)}
    assert types.written(node) == {
        'a': [{'type': 'mmcv.ops.nms'}],
        'b': ({'type': 'normplug.norms.sn.SN'}, 'builtins.len', 3),
    }


def test_operators_by_the_names_that_mmcv_reads(tmp_path):
    path = tmp_path / 'dumped.py'
    path.write_text(
        'roi = dict(roi_layer=dict(type="mmcv.ops.RoIAlign", output_size=7))\n'
        'model = dict(test_cfg=[dict(nms=dict(type="mmcv.ops.nms")), dict(nms=dict(type="nms"))],\n'
        '             neck=dict(type="mmcv.ops.CARAFEPack"))\n'
    )
    cfg = load_config(str(path))
    assert cfg.roi.roi_layer.type == 'RoIAlign'
    assert [part.nms.type for part in cfg.model.test_cfg] == ['nms', 'nms']
    assert cfg.model.neck.type == 'mmcv.ops.CARAFEPack'


@pytest.mark.parametrize('kind', ['SGD', 'torch.optim.SGD', torch.optim.SGD])
def test_room_for_the_state_of_a_class(kind, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        'normplug.preflight.disk.check_room', lambda folder, size: asked.append(size)
    )
    assert types.class_of({'type': kind}, OPTIMIZERS, 'mmengine') is torch.optim.SGD
    cfg = Config({'work_dir': str(tmp_path), 'optim_wrapper': {'optimizer': {'type': kind}}})
    check_disk(cfg, torch.nn.Linear(10, 10))
    assert asked == [4 * 110]


def test_classes_from_main_are_taken_as_they_are(project):
    """Such a class has no path that could be imported; mmengine's runner takes it."""

    class Local(torch.nn.Module):
        pass

    cfg = load_config(project.write_config())
    cfg.val_evaluator = {'type': Local}
    check_types(cfg, ('val',))


def test_options_of_the_test_keep_a_config_that_can_be_dumped(tmp_path):
    pytest.importorskip('mmseg')
    path = tmp_path / 'segmentor.py'
    path.write_text(
        'from mmseg.models import EncoderDecoder, SegTTAModel\n'
        'from mmseg.evaluation import IoUMetric\n'
        'default_scope = None\n'
        'model = dict(type=EncoderDecoder)\n'
        'tta_model = dict(type=SegTTAModel)\n'
        'tta_pipeline = []\n'
        'test_dataloader = dict(dataset=dict(pipeline=[]))\n'
        'test_evaluator = dict(type=IoUMetric)\n'
    )
    cfg = load_config(str(path))
    enable_tta(cfg)
    save_predictions(cfg, str(tmp_path / 'maps'))
    cfg.dump(tmp_path / 'dumped.py')
    dumped = Config.fromfile(tmp_path / 'dumped.py')
    assert dumped.model.type == 'mmseg.models.SegTTAModel'
    assert dumped.model.module.type == 'mmseg.models.EncoderDecoder'
    assert dumped.test_evaluator.output_dir == str(tmp_path / 'maps')
