"""The configs that come with mmdet, mmseg and mmpretrain pass the checks before data and model."""

import importlib
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import METRICS
from mmengine.registry import __dict__ as registries

from normplug.errors import UserError
from normplug.preflight.config import load_config
from normplug.preflight.settings import check_settings
from normplug.preflight.types import check_types

# The first config of these folders is one that mmengine's runner refuses too.
REFUSED = {
    'bytetrack': "there is no type 'MOTChallengeMetrics'",
    'solov2': 'train_cfg.by_epoch: EpochBasedTrainLoop has no such argument',
    'replknet': 'cannot read config',
    'sort': 'cannot read config',
    'swin_transformer_v2': 'cannot read config',
}
# Their data sets are registered with further packages only.
MULTIMODAL = {'blip', 'blip2', 'flamingo', 'minigpt4', 'ofa', 'otter'}
TRAIN = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
TEST = ('model', 'test_dataloader', 'test_cfg', 'test_evaluator')


def first_configs(package):
    """Of every family of networks."""
    folder = Path(importlib.import_module(package).__file__).parent / '.mim/configs'
    found = [sorted(family.glob('*.py'))[:1] for family in sorted(folder.iterdir())]
    return [
        path for paths in found for path in paths if path.parent.name not in {'_base_', *MULTIMODAL}
    ]


def check(cfg):
    checked = False
    for keys, phases in ((TRAIN, ('train', 'val')), (TEST, ('test',))):
        if all(cfg.get(key) is not None for key in keys):
            check_types(cfg, phases)
            check_settings(cfg, phases)
            checked = True
    return checked


@pytest.mark.slow
@pytest.mark.parametrize(('package', 'least'), [('mmdet', 45), ('mmseg', 20), ('mmpretrain', 30)])
def test_no_config_of_a_package_is_refused(package, least):
    pytest.importorskip(package)
    checked, refused = 0, {}
    for path in first_configs(package)[::2]:
        try:
            checked += check(load_config(str(path)))
        except UserError as error:
            family = path.parent.name
            absent = 'not installed' in str(error)  # what the config asks for, and mm then misses
            if not absent and REFUSED.get(family, '\0') not in str(error):
                refused[path.name] = str(error)
    assert not refused
    assert checked >= least


def with_classes(node, package):
    """``node`` with each type that a registry of ``package`` knows as the class."""
    if isinstance(node, (list, tuple)):
        return type(node)(with_classes(item, package) for item in node)
    if not isinstance(node, dict):
        return node
    node = {name: with_classes(value, package) for name, value in node.items()}
    for name in {'type', 'constructor'} & node.keys():
        if isinstance(node[name], str):
            roots = [value for value in registries.values() if isinstance(value, type(METRICS))]
            own = [root.children[package] for root in roots if package in root.children]
            asked = (registry.get(node[name]) for registry in (*own, *roots))
            node[name] = next((kind for kind in asked if kind is not None), node[name])
    return node


@pytest.mark.slow
@pytest.mark.parametrize('family', ['faster_rcnn', 'rtmdet', 'yolox', 'soft_teacher', 'fcos'])
def test_the_same_with_classes_as_types(family):
    package = pytest.importorskip('mmdet').__name__
    path = next(path for path in first_configs(package) if path.parent.name == family)
    sections = load_config(str(path)).to_dict()
    model = sections.pop('model')
    cfg = Config({**with_classes(sections, package), 'model': model, 'default_scope': None})
    assert not isinstance(cfg.train_dataloader.sampler.type, str)
    assert check(cfg)
