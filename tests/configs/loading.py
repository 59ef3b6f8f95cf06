"""Configs by their names below configs/, and their models."""

import copy
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

CONFIGS = Path(__file__).parents[2] / 'configs'
NEEDS = {
    'imagenet': 'mmpretrain',
    'ibn_gta5': 'mmseg',
    'faster_rcnn': 'mmdet',
    'mask_rcnn': 'mmdet',
    'fcn': 'mmseg',
    'pretrain': 'mmpretrain',
    'i3d': 'mmaction',
    'practice': 'mmdet',
}


def load(name):
    """A config, read once a process: mmengine takes up to a second for each."""
    pytest.importorskip(NEEDS[name.split('/')[0]])
    return copy.deepcopy(_read(name))


@lru_cache(None)
def _read(name):
    return Config.fromfile(CONFIGS / name)


def build(cfg, values=True):
    """Its model; without values for what asks for layers and shapes only, which is faster."""
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    # mmpretrain's networks calculate while they are built.
    values = values or cfg.default_scope == 'mmpretrain'
    device = nullcontext() if values else torch.device('meta')
    with DefaultScope.overwrite_default_scope(cfg.default_scope), device:
        return MODELS.build(cfg.model)
