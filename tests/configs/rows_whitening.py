"""The rows of the tables of whitening: norms of the backbone, and of the segmentor's heads."""

# The stem's norm and the first of each basic block, SW's not in the last stage; BN elsewhere.
BACKBONES = {
    'bn': {'BatchNorm2d': 20},
    'gn': {'GroupNorm': 20},
    'sn': {'SN': 20},
    'sw': {'SW': 7, 'BatchNorm2d': 13},
    'gw': {'GW': 9, 'BatchNorm2d': 11},
}
HEADS = {'decode_head': {'GroupNorm': 1}, 'auxiliary_head': {'GroupNorm': 1}}

DETECTORS = [
    f'faster_rcnn/faster-rcnn_r18-w32_fpn_{norm}_whitening_digits.py' for norm in BACKBONES
]
SEGMENTORS = [f'fcn/fcn_r18-d8-w32_{norm}_whitening_digits-ade.py' for norm in BACKBONES]
# At 2 images a batch → at 1.
ONE_IMAGE = {two: two.replace('_whitening', '_whitening_b1') for two in DETECTORS + SEGMENTORS}
ROWS = [*ONE_IMAGE, *ONE_IMAGE.values()]


def norm_of(name: str) -> str:
    """The key of ``BACKBONES``."""
    return name.split('_whitening')[0].rpartition('_')[2]


# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED: dict[str, dict[str, dict[str, int]]] = {
    name: {'backbone': BACKBONES[norm_of(name)], **(HEADS if name.startswith('fcn') else {})}
    for name in ROWS
}
EXPECTED |= {
    f'imagenet/resnet18-w32_{norm}_1xb32_digits.py': {'backbone': BACKBONES[norm]}
    for norm in ('sw', 'gw')
}
# The BN detector with whitened convolutions.
EXPECTED['faster_rcnn/faster-rcnn_r18-w32_fpn_wnn_digits.py'] = {'backbone': BACKBONES['bn']}
# At full scale: the stem, and the 3x3 convolutions of 16 bottlenecks.
EXPECTED |= {
    'imagenet/resnet50_gw_8xb32_imagenet.py': {'backbone': {'GW': 17, 'BatchNorm2d': 36}},
    'faster_rcnn/faster-rcnn_r50_fpn_gw_1x_coco.py': {
        'backbone': {'GW': 17, 'PortableSyncBN': 36},
        'neck': {'GroupNorm': 8},
        'roi_head': {'GW': 4},
    },
}
