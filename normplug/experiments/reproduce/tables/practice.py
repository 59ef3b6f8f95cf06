"""A practitioner's question: which norm, from ImageNet's batch norm weights, on real pictures?"""

from ..rows import Column, Row, Scale, Table

__all__ = ['PRACTICE_CELLS', 'PRACTICE_TREES']

_NORMS = ('frozen BN', 'BN', 'GN', 'SN from BN', 'SN', 'SSN', 'IBN-a', 'KN')
_CONFIGS = {'SN from BN': 'sn-bn'}
# Images a batch → as rows and configs have it.
_BATCHES = (('2 images', ''), ('1 image', '_b1'))
_WEIGHTS = 'from the weights of a ResNet-50 with batch norm'


def _rows(network: str, data: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            f'{norm}, {images}',
            Scale(
                f'practice/{network}_r50_fpn_'
                f'{_CONFIGS.get(norm, norm.lower().replace(" ", "-"))}_{data}{suffix}'
            ),
            None,
            group=images,
        )
        for images, suffix in _BATCHES
        for norm in _NORMS
    )


PRACTICE_TREES = Table(
    'practice-trees',
    f'Faster R-CNN+FPN on aerial photographs of trees, {_WEIGHTS}',
    'none of these rows',
    (Column('AP', 'coco/bbox_mAP', factor=100), Column('AP50', 'coco/bbox_mAP_50', factor=100)),
    _rows('faster-rcnn', 'trees'),
    'no rows',
)
PRACTICE_CELLS = Table(
    'practice-cells',
    f'Mask R-CNN+FPN on cells under the microscope, {_WEIGHTS}',
    'none of these rows',
    (
        Column('AP_m', 'coco/segm_mAP', factor=100),
        Column('AP_b', 'coco/bbox_mAP', factor=100),
    ),
    _rows('mask-rcnn', 'cells'),
    'no rows',
)
