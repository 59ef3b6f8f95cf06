"""Small trained networks of all packages, as a config and a checkpoint; the tools."""

import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from normplug.norms import SSN
from normplug.whitened import WhitenedLayer
from tests.mm.norm_layers import randomize

TOOLS = Path(__file__).parents[2] / 'tools'


def backbone(norm):
    return dict(
        type='ResNet',
        depth=18,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        base_channels=8,
        stem_channels=8,
        norm_cfg=dict(type=norm),
        init_cfg=None,
    )


def models(norm):
    """Scope → model, with norms of that type in backbone and head."""
    return {
        'mmdet': dict(
            type='RetinaNet',
            backbone=dict(backbone(norm), norm_eval=False),
            neck=dict(type='FPN', in_channels=[8, 16], out_channels=8, num_outs=2),
            bbox_head=dict(
                type='RetinaSepBNHead',  # its convolutions are shared by the norms of the levels
                num_classes=2,
                in_channels=8,
                feat_channels=8,
                num_ins=2,
                stacked_convs=1,
                norm_cfg=dict(type='BN'),
                anchor_generator=dict(
                    type='AnchorGenerator', ratios=[1.0], scales=[4], strides=[4, 8]
                ),
                bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            ),
        ),
        'mmseg': dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor'),
            backbone=backbone(norm),
            decode_head=dict(
                type='FCNHead',
                in_channels=16,
                in_index=1,
                channels=8,
                num_classes=2,
                norm_cfg=dict(type=norm),
            ),
            test_cfg=dict(mode='whole'),
        ),
        'mmpretrain': dict(
            type='ImageClassifier',
            backbone=backbone(norm),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=16),
        ),
        'mmaction': dict(
            type='Recognizer3D',
            backbone=dict(
                type='ResNet3d',
                depth=18,
                num_stages=2,
                spatial_strides=(1, 2),
                temporal_strides=(1, 1),
                dilations=(1, 1),
                out_indices=(1,),
                base_channels=8,
                norm_cfg=dict(type='BN3d' if norm == 'BN' else norm),
            ),
            cls_head=dict(type='I3DHead', num_classes=2, in_channels=16),
        ),
    }


def decide(model):
    """Let every SSN choose, in turn: in, ln, bn for both; one mixed; one not."""
    layers = [layer for layer in model.modules() if isinstance(layer, SSN)]
    choices = [('in', 'in'), ('bn', 'bn'), ('ln', 'ln'), ('bn', 'bn'), ('in', 'bn'), None]
    for i, layer in enumerate(layers):
        choice = choices[i % len(choices)]
        if choice is None:
            continue
        for name, state in zip(choice, (layer.mean_choice, layer.var_choice), strict=True):
            state[layer.normalizers.index(name)] = 1


def whiten(model):
    """Put every whitened layer in coordinates of its own."""
    for layer in model.modules():
        if isinstance(layer, WhitenedLayer):
            for matrix in (layer.in_matrix, layer.out_matrix):
                if matrix is not None:
                    matrix.add_(0.1 * torch.randn_like(matrix))
            layer.in_mean.normal_()


class Trained:
    """The files of a network whose every weight and statistic is off its start."""

    def __init__(self, folder, scope, norm, **changes):
        self.folder, self.scope = folder, scope
        cfg = Config(dict(default_scope=scope, model=dict(models(norm)[scope], **changes)))
        cfg.custom_imports = dict(imports=['normplug'])
        self.config, self.checkpoint = folder / 'trained.py', folder / 'trained.pth'
        cfg.dump(self.config)
        with DefaultScope.overwrite_default_scope(scope):
            self.model = MODELS.build(cfg.model)
        randomize(self.model)
        whiten(self.model)
        decide(self.model)
        self.model.eval()
        meta = dict(dataset_meta=dict(classes=('one', 'two')))
        torch.save(dict(state_dict=self.model.state_dict(), meta=meta), self.checkpoint)

    def files(self):
        return {path: path.is_file() and path.read_bytes() for path in self.folder.rglob('*')}


@pytest.fixture
def trained(tmp_path):
    def make(scope, norm, **changes):
        pytest.importorskip(scope)
        return Trained(tmp_path, scope, norm, **changes)

    return make


@pytest.fixture
def tool():
    """The `main` of a script in tools/, which takes paths too."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f'{name}_tool', TOOLS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return lambda *argv: module.main([str(arg) for arg in argv])

    return load


@pytest.fixture
def refused(capsys):
    """A tool must refuse: exit code 2, the message without traceback, nothing written."""

    def check(network, main, argv, *messages):
        before = network.files()
        capsys.readouterr()
        assert main(*argv) == 2
        error = capsys.readouterr().err
        assert 'Traceback' not in error
        for message in messages:
            assert message in error
        assert network.files() == before

    return check
