"""Released networks of any depth as state dicts, mm's ResNets, and the tool."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

ROOT = Path(__file__).parents[2]
DATA = ROOT / 'tests' / 'data'
sys.path.insert(0, str(DATA))
from fill import filled  # noqa: E402

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_BLOCKS[152] = (3, 8, 36, 3)


def convert_tool(*argv) -> int:
    """Run tools/convert_checkpoint.py in this process; the exit code."""
    path = ROOT / 'tools' / 'convert_checkpoint.py'
    spec = importlib.util.spec_from_file_location('convert_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(arg) for arg in argv])


def golden_state(name: str) -> dict[str, torch.Tensor]:
    """The weights of a golden network, by their released names."""
    shapes = json.loads((DATA / 'released_state_dicts.json').read_text())[name]
    return {key: _typed(key, filled(key, tuple(shape))) for key, shape in shapes.items()}


def released_shapes(kind: str, depth: int, width: int = 4, classes: int = 3) -> dict[str, tuple]:
    """Name → shape in the released network of ``kind`` (sn, sn_8x1, ssn, ibn_a, ibn_b).

    Written down by the released classes' structure; ``test_generator`` compares with the golden
    list.
    """
    blocks, expansion = _BLOCKS[depth], 1 if depth < 50 else 4
    shapes = {'conv1.weight': (width, 3, 7, 7)}
    norm = 'bn' if kind.startswith('ibn') else 'sn'
    stem = 'in' if kind == 'ibn_b' else kind
    _add_norm(shapes, f'{norm}1', width, 'bn' if kind == 'ibn_a' else stem)
    channels = width
    for stage, number in enumerate(blocks):
        planes = width * 2**stage
        for index in range(number):
            block = f'layer{stage + 1}.{index}'
            if expansion == 1:
                convs = [(channels, planes, 3), (planes, planes, 3)]
            else:
                convs = [(channels, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1)]
            for i, (before, after, size) in enumerate(convs, 1):
                shapes[f'{block}.conv{i}.weight'] = (after, before, size, size)
                ibn = kind == 'ibn_a' and i == 1 and stage < 3
                plain = 'bn' if kind.startswith('ibn') else kind
                _add_norm(shapes, f'{block}.{norm}{i}', after, 'ibn' if ibn else plain)
            if kind == 'ibn_b' and stage < 2 and index == number - 1:
                _add_norm(shapes, f'{block}.IN', planes * expansion, 'in')
            if index == 0 and (stage > 0 or expansion > 1):
                shapes[f'{block}.downsample.0.weight'] = (planes * expansion, channels, 1, 1)
                plain = 'bn' if kind.startswith('ibn') else kind
                _add_norm(shapes, f'{block}.downsample.1', planes * expansion, plain)
            channels = planes * expansion
    return {**shapes, 'fc.weight': (classes, channels), 'fc.bias': (classes,)}


def released_state(kind: str, depth: int, **options) -> dict[str, torch.Tensor]:
    """The network of :func:`released_shapes`, filled."""
    shapes = released_shapes(kind, depth, **options)
    return {name: _typed(name, filled(name, shape)) for name, shape in shapes.items()}


def _typed(name: str, value: torch.Tensor) -> torch.Tensor:
    return value.long() if name.endswith('_fixed') else value


def _add_norm(shapes: dict, name: str, channels: int, kind: str) -> None:
    if kind == 'ibn':
        _add_norm(shapes, f'{name}.IN', channels // 2, 'in')
        _add_norm(shapes, f'{name}.BN', channels - channels // 2, 'bn')
        return
    switchable = kind.startswith(('sn', 'ssn'))
    affine = (1, channels, 1, 1) if switchable else (channels,)
    shapes |= {f'{name}.weight': affine, f'{name}.bias': affine}
    if switchable:
        logits = (2,) if kind == 'sn_8x1' else (3,)
        shapes |= {f'{name}.mean_weight': logits, f'{name}.var_weight': logits}
    if kind not in ('in', 'sn_8x1'):
        running = (1, channels, 1) if switchable else (channels,)
        shapes |= {f'{name}.running_mean': running, f'{name}.running_var': running}
    if kind == 'bn':
        shapes[f'{name}.num_batches_tracked'] = ()
    if kind == 'ssn':
        shapes |= {f'{name}.{part}': (1,) for part in ('mean_fixed', 'var_fixed', 'radius')}


def resnet(scope: str = 'mmdet', depth: int = 50, **options) -> nn.Module:
    """A ResNet of mm, by default with the released widths; all stages' features."""
    pytest.importorskip(scope)
    cfg = dict(type='ResNet', depth=depth, out_indices=(0, 1, 2, 3))
    if scope != 'mmpretrain':
        cfg['norm_eval'] = False
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build({**cfg, **options})


def classifier(depth: int, norm_cfg: dict, width: int = 4, classes: int = 3, **backbone):
    """A narrow ResNet classifier of mmpretrain."""
    pytest.importorskip('mmpretrain')
    channels = width * 8 * (1 if depth < 50 else 4)
    options = dict(stem_channels=width, base_channels=width, norm_cfg=norm_cfg, **backbone)
    head = dict(type='LinearClsHead', num_classes=classes, in_channels=channels)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='ImageClassifier',
                backbone={'type': 'ResNet', 'depth': depth, **options},
                neck=dict(type='GlobalAveragePooling'),
                head=head,
            )
        )


def assert_same_tensors(got: dict, want: dict) -> None:
    """Bit for bit, with the same types."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        assert torch.equal(got[name], value), name
