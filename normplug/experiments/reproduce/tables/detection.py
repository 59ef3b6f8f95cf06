"""Tables 3 and 4: detectors on COCO."""

from ..rows import Column, Row, Scale, Table

__all__ = ['TABLE3', 'TABLE4']

_SOURCE = 'Luo, VALSE 2018, slides of Switchable Normalization'
_AT_DIGITS = 'ResNet-18 of half the width on digits of 128x128 pixels, 2 images a batch'
_SUFFIXES = {'': '', '50': '_50', '75': '_75'}


def _columns(kind: str, sizes: bool) -> tuple[Column, ...]:
    """AP of boxes or masks: ``kind`` is COCO's name of it."""
    mark = {'bbox': '_b', 'segm': '_m'}[kind] if not sizes else ''
    names = {f'AP{short}{mark}': f'coco/{kind}_mAP{suffix}' for short, suffix in _SUFFIXES.items()}
    if sizes:
        names |= {f'AP_{size}': f'coco/{kind}_mAP_{size}' for size in 'lms'}
    return tuple(Column(name, metric, factor=100) for name, metric in names.items())


def _row(model: str, schedule: str, columns: tuple[Column, ...], name: str, *aps: float) -> Row:
    norms = name.lower().replace('bn*', 'frozen-bn').replace('/-', '').replace('/', '-')
    if norms.startswith('frozen-bn-'):
        norms = norms.replace('bn-', 'bn_') + '-head'
    folder = model.replace('-', '_')
    return Row(
        name,
        Scale(f'{folder}/{model}_r50_fpn_{norms}_{schedule}_coco'),
        Scale(f'{folder}/{model}_r18-w32_fpn_{norms}_{schedule}_digits'),
        dict(zip((column.name for column in columns), aps, strict=True)),
    )


_BOX = _columns('bbox', sizes=True)
_BOX_AND_MASK = _columns('bbox', sizes=False) + _columns('segm', sizes=False)

TABLE3 = Table(
    'table3',
    'Faster R-CNN+FPN, ResNet-50, COCO, 1x (backbone/head; * frozen)',
    _SOURCE,
    _BOX,
    tuple(
        _row('faster-rcnn', '1x', _BOX, *row)
        for row in (
            ('BN*/-', 36.7, 58.4, 39.6, 48.1, 39.8, 21.1),
            ('BN*/GN', 37.2, 58.0, 40.4, 48.6, 40.3, 21.6),
            ('BN*/SN', 38.0, 59.4, 41.5, 48.9, 41.3, 22.7),
            ('GN/GN', 38.2, 58.7, 41.3, 49.6, 41.0, 22.4),
            ('SN/SN', 39.3, 60.9, 42.8, 50.3, 42.7, 23.5),
        )
    ),
    _AT_DIGITS,
)
TABLE4 = Table(
    'table4',
    'Mask R-CNN+FPN, ResNet-50, COCO, 2x (backbone/head; * frozen)',
    _SOURCE,
    _BOX_AND_MASK,
    tuple(
        _row('mask-rcnn', '2x', _BOX_AND_MASK, *row)
        for row in (
            ('BN*/-', 38.6, 59.5, 41.9, 34.2, 56.2, 36.1),
            ('BN*/GN', 39.5, 60.0, 43.2, 34.4, 56.4, 36.3),
            ('BN*/SN', 40.0, 61.0, 43.3, 34.8, 57.3, 36.3),
            ('GN/GN', 40.2, 60.9, 43.8, 35.7, 57.8, 38.0),
            ('GN/SN', 40.4, 61.4, 44.2, 36.0, 58.4, 38.1),
            ('SN/SN', 41.0, 62.3, 45.1, 36.5, 58.9, 38.7),
        )
    ),
    _AT_DIGITS,
)
