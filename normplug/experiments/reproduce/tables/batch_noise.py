"""Batch norm taken apart: population norm, gamma decay, and the noise of mean and variance."""

from ..rows import Column, Row, Scale, Table

__all__ = ['BATCH_NOISE', 'BATCH_NOISE_DETECTION']

_NET = 'imagenet/resnet18-w16'
# Images of the statistics, whose noise it is.
_IMAGES = (2, 8, 32, 128)
_NORMS = ('BN', 'PN decay', 'PN synthetic', 'PN mean', 'PN var')
# At full scale: 8 GPUs x 32 images.
_REAL = {'GN': 'gn', 'PN': 'pn', 'BN, 32': 'bn', 'PN decay, 32': 'pn-decay'}


def _row(name: str, digits: str, norm: str, images: int | None = None) -> Row:
    real = _REAL.get(name)
    return Row(
        name,
        real and Scale(f'imagenet/resnet50_{real}_8xb32_imagenet'),
        Scale(f'{_NET}_{digits}_batch-noise_digits'),
        norm=norm,
        images=images,
        group=str(images),
    )


def _at(norm: str, images: int) -> Row:
    # The batch of the gradient has statistics of 128 images.
    digits = 'bn' if (norm, images) == ('BN', 128) else f'{norm.lower()}-m{images}'
    return _row(f'{norm}, {images}', digits.replace(' ', '-'), norm, images)


BATCH_NOISE = Table(
    'batch-noise',
    'BN, PN, PN with gamma decay, and PN with noise, by images of the statistics (M)',
    'none of these rows (arXiv 1809.00846 has curves)',
    (
        Column('top-1 error', 'accuracy/top1', is_error=True, higher_is_better=False),
        Column('training loss x 100', 'train/loss', factor=100, higher_is_better=None),
    ),
    (
        _row('GN', 'gn', 'GN'),
        _row('PN', 'pn', 'PN'),
        *(_at(norm, images) for images in _IMAGES for norm in _NORMS),
    ),
    'ResNet-18 of a quarter of the width on digits of 48x48 pixels; 128 images for the gradient in '
    'all rows',
)

_DETECTOR = 'faster_rcnn/faster-rcnn_r18-w32_fpn'
# Images a batch → as rows and configs have it.
_BATCHES = {2: ('2 images', ''), 1: ('1 image', '_b1')}


def _detectors(images: int) -> tuple[Row, ...]:
    told, suffix = _BATCHES[images]
    configs = {norm: f'{norm.lower()}_whitening' for norm in ('BN', 'GN', 'SN')}
    configs['PN'] = 'pn_batch-noise'
    configs |= {f'PN decay {m}': f'pn-decay-m{m}_batch-noise' for m in (images, 32)}
    return tuple(
        Row(f'{norm}, {told}', None, Scale(f'{_DETECTOR}_{config}{suffix}_digits'), group=told)
        for norm, config in configs.items()
    )


_AP = Column('AP', 'coco/bbox_mAP', factor=100)
# Table 3's, with norms after the backbone too; there are none at 1 image.
_OF_TABLE3 = {'GN/GN': ('gn-gn', 38.2), 'SN/SN': ('sn-sn', 39.3)}


def _on_coco(images: int) -> tuple[Row, ...]:
    told, suffix = _BATCHES[images]
    configs = {name: config for name, (config, _) in _OF_TABLE3.items() if images == 2}
    configs |= {'BN': f'bn{suffix}', 'PN': f'pn{suffix}'}
    configs |= {f'PN decay {m}': f'pn-decay-m{m}{suffix}' for m in (images, 32)}
    return tuple(
        Row(
            f'{norm}, COCO, {told}',
            Scale(f'faster_rcnn/faster-rcnn_r50_fpn_{config}_1x_coco'),
            None,
            {_AP.name: _OF_TABLE3[norm][1]} if norm in _OF_TABLE3 else {},
            group=f'COCO, {told}',
        )
        for norm, config in configs.items()
    )


BATCH_NOISE_DETECTION = Table(
    'batch-noise-detection',
    'Faster R-CNN+FPN by images a batch; norms in the backbone alone (GN/GN, SN/SN: and after it); '
    'gamma decay of M images',
    'GN/GN and SN/SN: Table 3 (Luo, VALSE 2018, slides of Switchable Normalization); others: none',
    (_AP,),
    tuple(row for rows in (_detectors, _on_coco) for images in _BATCHES for row in rows(images)),
    'ResNet-18 of half the width on digits of 128x128 pixels',
)
