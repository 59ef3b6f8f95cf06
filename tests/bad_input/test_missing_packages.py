"""What a config asks for and is not installed is told before anything is written."""

import sys

import pytest
from mmengine.hooks import Hook
from mmengine.registry import TRANSFORMS

from normplug.preflight.packages import missing_package

optional = None  # as after ``try: import optional except ImportError``


@pytest.mark.parametrize(
    ('module', 'lines', 'messages'),
    [
        ('wandb', "visualizer = dict(type='DetLocalVisualizer', vis_backends=[\n"
         "    dict(type='LocalVisBackend'), dict(type='WandbVisBackend')])",
         ('visualizer.vis_backends.1.type: WandbVisBackend needs', 'pip install wandb')),
        ('torch.utils.tensorboard', "visualizer = dict(type='mmengine.Visualizer', vis_backends=[\n"
         "    dict(type='TensorboardVisBackend')])",
         ('visualizer.vis_backends.0.type: Tensorboard', 'pip install future tensorboard')),
        ('psutil', "custom_hooks = [dict(type='MemoryProfilerHook')]",
         ('custom_hooks.0.type: MemoryProfilerHook needs a package', 'pip install psutil')),
    ],
)  # fmt: skip
def test_imported_late(detection, tool, refused, monkeypatch, module, lines, messages):
    monkeypatch.setitem(sys.modules, module, None)
    detection.write_config(f'{lines}\n')
    refused(tool('train'), ['config.py'], messages)


@pytest.mark.parametrize(
    ('module', 'name', 'lines', 'messages'),
    [
        ('mmdet.datasets.transforms.transforms', 'albumentations',
         "train_dataloader['dataset']['pipeline'].insert(2, dict(type='Albu', transforms=[\n"
         "    dict(type='RandomRotate90')]))",
         ('train_dataloader.dataset.pipeline.2.type: Albu needs', 'pip install albumentations')),
        ('mmdet.datasets.transforms.transforms', 'corrupt',
         "train_dataloader['dataset']['pipeline'].insert(2, dict(type='Corrupt',\n"
         "    corruption='fog'))",
         ('train_dataloader.dataset.pipeline.2.type: Corrupt', 'pip install imagecorruptions')),
        ('mmdet.evaluation.metrics.lvis_metric', 'lvis',
         "val_evaluator = dict(type='LVISMetric', ann_file='data/val.json')",
         ('val_evaluator.type: LVISMetric needs', 'lvis-api.git')),
        ('mmdet.evaluation.metrics.coco_panoptic_metric', 'panopticapi',
         "val_evaluator = [dict(type='CocoPanopticMetric', ann_file='data/val.json')]",
         ('val_evaluator.0.type: CocoPanopticMetric needs', 'panopticapi.git')),
    ],
)  # fmt: skip
def test_none_in_the_module(detection, tool, refused, monkeypatch, module, name, lines, messages):
    detection.write_config('')
    refused(tool('train'), ['config.py', '--cfg-options', 'model.type=Gone'], ())  # imports mmdet
    monkeypatch.setattr(sys.modules[module], name, None)
    detection.write_config(f'{lines}\n')
    refused(tool('train'), ['config.py'], messages)


def test_what_is_built_at_once(detection, tool, refused, monkeypatch):
    """A transform whose source says nothing of it, but which cannot be built."""

    class Needy:
        def __init__(self):
            import no_such_package  # noqa: F401

    monkeypatch.setitem(TRANSFORMS.module_dict, 'Needy', Needy)
    detection.write_config(
        "train_dataloader['dataset']['pipeline'].append(dict(type='mmengine.Needy'))\n"
    )
    messages = ('train_dataloader.dataset.pipeline.4: needs', 'pip install no_such_package')
    refused(tool('train'), ['config.py'], messages)


class Asks:
    def __init__(self, fast=False):
        if fast and optional is None:
            raise ImportError('optional is not installed')

    def transform(self, data):
        if self.enough:
            return data
        if optional is None:
            raise ImportError('optional is not installed')
        return data


class AsksAlways(Asks):
    def transform(self, data):
        if optional is None:
            raise ImportError('optional is not installed')
        return data


class AsksElsewhere(Hook):
    def after_run(self, runner):
        if optional is None:
            raise ImportError('optional is not installed')


class Asserts:
    def __init__(self):
        assert optional is not None, 'please install optional'


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        (Asks, ''),
        (AsksAlways, 'optional is not installed'),
        (AsksElsewhere, ''),
        (Asserts, 'please install optional'),
    ],
)
def test_only_what_is_reached_in_any_case_counts(kind, message):
    assert missing_package(kind) == message
