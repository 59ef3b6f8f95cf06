"""Whitening against the other normalizers, at 2 images and at 1 image a batch."""

from ..rows import Column, Row, Scale, Table

__all__ = ['WHITENING_DETECTION', 'WHITENING_SEGMENTATION']

_NORMS = ('BN', 'GN', 'SN', 'SW', 'GW')
# Images a batch → as rows and configs have it.
_BATCHES = {2: ('2 images', ''), 1: ('1 image', '_b1')}


def _rows(network: str, data: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            f'{norm}, {images}',
            None,
            Scale(f'{network}_{norm.lower()}_whitening{suffix}_{data}'),
            group=images,
        )
        for images, suffix in _BATCHES.values()
        for norm in _NORMS
    )


_TITLE = 'by images a batch; norms in the backbone alone, SW and GW at their published places'
_AT_DIGITS = 'ResNet-18 of half the width on digits of 128x128 pixels'
_AP = Column('AP', 'coco/bbox_mAP', factor=100)
# Trained on COCO only: other backbone, heads and weights. GW's other norms are frozen BN there.
_PUBLISHED = tuple(
    Row(
        f'{norm}, COCO',
        Scale(f'faster_rcnn/faster-rcnn_r50_fpn_{config}_1x_coco'),
        None,
        {_AP.name: ap},
        group='COCO',
    )
    for norm, config, ap in (('GN', 'gn-gn', 37.86), ('GW', 'gw', 39.60))
)

WHITENING_DETECTION = Table(
    'whitening-detection',
    f'Faster R-CNN+FPN {_TITLE}',
    'README of GroupWhitening, box head of four convolutions',
    (_AP,),
    _rows('faster_rcnn/faster-rcnn_r18-w32_fpn', 'digits') + _PUBLISHED,
    _AT_DIGITS,
)
WHITENING_SEGMENTATION = Table(
    'whitening-segmentation',
    f'FCN {_TITLE}',
    'none of these rows',
    (Column('mIoU', 'mIoU'),),
    _rows('fcn/fcn_r18-d8-w32', 'digits-ade'),
    _AT_DIGITS,
)
