"""The league: every normalizer for few images per GPU, by the images of its statistics.

A norm is a row in `configs/_base_/rows`, a config at either scale in each of the two networks, and
a line in ``_NORMS``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..rows import Column, Row, Scale, Table

__all__ = ['LEAGUE_DETECTION', 'LEAGUE_SEGMENTATION']

# Norm → types that take the statistics of all GPUs, by their place in the backbone's config.
_NORMS: dict[str, dict[str, str]] = {
    'frozen BN': {},
    'BN': {'': 'SyncBN'},
    'GN': {},
    'GN+WS': {},
    'SN': {'': 'SyncSN'},
    'SSN': {'': 'SyncSSN'},
    'IBN-a': {'': 'SyncBN'},
    'KN': {'': 'SyncKN'},
    'BRN': {'': 'SyncBRN'},
    # There is no such type: their batches are those of a GPU, at 16 images too.
    'MABN': {},
    'CBN': {},
    'BCN': {'': 'SyncBCN'},
    'FRN': {},
    'SW': {'': 'SyncBN', 'norms.0.': 'SyncSW', 'norms.1.': 'SyncSW'},
    'IterNorm': {'': 'SyncBN', 'norms.0.': 'SyncIterNorm'},
    'GW': {'': 'SyncBN'},
}
# Those that the tables of whitening have at digits scale, of the same recipe.
_WHITENING = ('BN', 'GN', 'SN', 'SW', 'GW')


class _Network(NamedTuple):
    """Where its configs are, and what they change at other images than 2."""

    digits: str
    real: str
    changes: Mapping[str, Mapping[str, Any]]


# At 1 image as many images as at 2, at half the rate; a warm-up on the digits has as many, too.
# At 16 of the digits as many steps as at 2 of them, at the same rate.
_DETECTION = _Network(
    'faster_rcnn/faster-rcnn_r18-w32_fpn_{}_digits',
    'faster_rcnn/faster-rcnn_r50_fpn_{}_1x_coco',
    {
        'real_b1': {
            'train_dataloader.batch_size': 1,
            'optim_wrapper.optimizer.lr': 0.01,
            'auto_scale_lr.base_batch_size': 8,
        },
        'digits_b1': {
            'train_dataloader.batch_size': 1,
            'optim_wrapper.optimizer.lr': 5e-4,
            'param_scheduler.0.end': 200,
            'auto_scale_lr.base_batch_size': 1,
        },
        'digits_b16': {
            'train_dataloader.batch_size': 16,
            'train_cfg.max_epochs': 8,
            'train_cfg.val_interval': 8,
            'param_scheduler.1.T_max': 8,
            'auto_scale_lr.base_batch_size': 16,
        },
    },
)
_SEGMENTATION = _Network(
    'fcn/fcn_r18-d8-w32_{}_digits-ade',
    'fcn/fcn_r50-d8_{}_ade20k',
    {
        'real_b1': {
            'train_dataloader.batch_size': 1,
            'train_cfg.max_iters': 200_000,
            'train_cfg.val_interval': 40_000,
            'optim_wrapper.optimizer.lr': 0.01,
            'param_scheduler.0.end': 200_000,
            'auto_scale_lr.base_batch_size': 8,
        },
        'digits_b1': {
            'train_dataloader.batch_size': 1,
            'train_cfg.max_iters': 1600,
            'train_cfg.val_interval': 1600,
            'optim_wrapper.optimizer.lr': 1e-4,
            'param_scheduler.0.end': 100,
            'param_scheduler.1.begin': 100,
            'param_scheduler.1.end': 1600,
            'auto_scale_lr.base_batch_size': 1,
        },
        'digits_b16': {
            'train_dataloader.batch_size': 16,
            'auto_scale_lr.base_batch_size': 16,
        },
    },
)
# SN at 1 image has no batch statistics, as its authors advise, and the released weights for that.
_SN_AT_1 = {
    'model.backbone.norm_cfg.using_bn': False,
    'model.backbone.init_cfg.checkpoint': 'checkpoints/resnet50v1_sn_8x1.pth',
}
# Batches of MABN's windows: as many as make 32 images.
_WINDOW = 'model.backbone.norm_cfg.window'


def _digits(network: _Network, norm: str, images: int) -> Scale:
    config = norm.lower().replace(' ', '-').replace('+', '-')
    if norm in _WHITENING and images == 1:
        return Scale(network.digits.format(f'{config}_whitening_b1'))
    table = 'whitening' if norm in _WHITENING else 'league'
    variant = '' if images == 2 else f'_b{images}'
    changes = network.changes[f'digits{variant}'] if variant else {}
    if variant and norm == 'MABN':
        changes = {**changes, _WINDOW: 32 // images}
    return Scale(network.digits.format(f'{config}_{table}'), variant=variant, options=changes)


def _real(network: _Network, norm: str, images: int) -> Scale:
    config = norm.lower().replace(' ', '-').replace('+', '-')
    # Table 3's own row.
    shared = (network, norm) == (_DETECTION, 'frozen BN')
    path = network.real.format(config if shared else f'{config}_league')
    if images == 1:
        own = {'SN': _SN_AT_1, 'MABN': {_WINDOW: 32}}.get(norm, {})
        changes = {**network.changes['real_b1'], **own}
        return Scale(path, variant='_b1', options=changes)
    if images == 2 or not _NORMS[norm]:
        return Scale(path)
    types = {f'model.backbone.{at}norm_cfg.type': name for at, name in _NORMS[norm].items()}
    return Scale(path, variant='_sync', options=types)


def _table(name: str, model: str, column: Column, network: _Network) -> Table:
    rows = (
        Row(
            f'{"SyncBN" if (norm, images) == ("BN", 16) else norm}, {told}',
            _real(network, norm, images),
            _digits(network, norm, images),
            group=told,
        )
        for images, told in ((2, '2 images'), (1, '1 image'), (16, '16 images'))
        for norm in _NORMS
    )
    return Table(
        name,
        f'{model} by images of the statistics; norms in the backbone alone',
        'none of these rows. At full scale 16 images are those of 8 GPUs x 2, in Sync types, and '
        'frozen BN, GN, GN+WS and FRN, which have no batch, and MABN and CBN, are the same runs as '
        'at 2',
        (column,),
        tuple(rows),
        'ResNet-18 of half the width on digits; at 16 images one process has the batch, so that '
        'BN is SyncBN, for as many steps as at 2: 8 times as many images for a gradient and in '
        'all. Compare rows of one batch with each other',
    )


LEAGUE_DETECTION = _table(
    'league-detection',
    'Faster R-CNN+FPN',
    Column('AP', 'coco/bbox_mAP', factor=100),
    _DETECTION,
)
LEAGUE_SEGMENTATION = _table('league-segmentation', 'FCN', Column('mIoU', 'mIoU'), _SEGMENTATION)
