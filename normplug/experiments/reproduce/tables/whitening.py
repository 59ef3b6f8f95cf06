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

WHITENING_DETECTION = Table(
    'whitening-detection',
    f'Faster R-CNN+FPN {_TITLE}',
    'none of these rows',
    (Column('AP', 'coco/bbox_mAP', factor=100),),
    _rows('faster_rcnn/faster-rcnn_r18-w32_fpn', 'digits'),
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
