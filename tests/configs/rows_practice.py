"""The rows of the tables of practice: norms of a backbone that starts from batch norm's weights."""

# Row → {norm type: layers} of the backbone; nothing else has a norm.
BACKBONES = {
    'frozen-bn': {'BatchNorm2d': 53},
    'bn': {'BatchNorm2d': 53},
    'gn': {'GroupNorm': 53},
    'sn-bn': {'SN': 53},
    'sn': {'SN': 53},
    'ssn': {'SSN': 53},
    'ibn-a': {'IBN': 13, 'BatchNorm2d': 40},
    'kn': {'KN': 53},
}
NETWORKS = {'trees': 'faster-rcnn', 'cells': 'mask-rcnn'}


def config(row: str, data: str, images: int = 2) -> str:
    suffix = '' if images == 2 else '_b1'
    return f'practice/{NETWORKS[data]}_r50_fpn_{row}_{data}{suffix}.py'


EXPECTED: dict[str, dict[str, dict[str, int]]] = {
    config(row, data, images): {'backbone': norms}
    for row, norms in BACKBONES.items()
    for data in NETWORKS
    for images in (2, 1)
}
