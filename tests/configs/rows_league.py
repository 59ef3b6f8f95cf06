"""The rows of the league: norms of the backbone, and of the segmentor's heads."""

from tests.configs import rows_whitening

# Row → norms of the ResNet-18 of the digits, and of the ResNet-50.
BACKBONES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    row: ({norm: 20}, {norm: 53})
    for row, norm in {
        'frozen-bn': 'BatchNorm2d',
        'bn': 'BatchNorm2d',
        'gn': 'GroupNorm',
        'gn-ws': 'GroupNorm',
        'sn': 'SN',
        'ssn': 'SSN',
        'kn': 'KN',
        'brn': 'BRN',
        'bcn': 'BCN',
        'mabn': 'MABN',
        'cbn': 'CBN',
        'frn': 'FRN',
    }.items()
}
# The first norm of each block of three stages; the stem's; the stem's and those of some 3x3
# convolutions (in the digits' ResNet-18: of first ones).
BACKBONES |= {
    'ibn-a': ({'IBN': 6, 'BatchNorm2d': 14}, {'IBN': 13, 'BatchNorm2d': 40}),
    'iternorm': ({'IterNorm': 1, 'BatchNorm2d': 19}, {'IterNorm': 1, 'BatchNorm2d': 52}),
    'sw': (rows_whitening.BACKBONES['sw'], {'SW': 7, 'BatchNorm2d': 46}),
    'gw': (rows_whitening.BACKBONES['gw'], {'GW': 17, 'BatchNorm2d': 36}),
}
HEADS = rows_whitening.HEADS
NETWORKS = ('faster_rcnn', 'fcn')


def digits(row: str, network: str) -> str:
    """The config at digits scale; some are the tables' of whitening."""
    table = 'whitening' if row in rows_whitening.BACKBONES else 'league'
    if network == 'fcn':
        return f'fcn/fcn_r18-d8-w32_{row}_{table}_digits-ade.py'
    return f'faster_rcnn/faster-rcnn_r18-w32_fpn_{row}_{table}_digits.py'


def full(row: str, network: str) -> str:
    """The config at full scale; the detector with frozen BN is Table 3's."""
    if network == 'fcn':
        return f'fcn/fcn_r50-d8_{row}_league_ade20k.py'
    name = row if row == 'frozen-bn' else f'{row}_league'
    return f'faster_rcnn/faster-rcnn_r50_fpn_{name}_1x_coco.py'


# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED: dict[str, dict[str, dict[str, int]]] = {
    config(row, network): {'backbone': norms, **(HEADS if network == 'fcn' else {})}
    for row, both in BACKBONES.items()
    for network in NETWORKS
    for config, norms in zip((digits, full), both, strict=True)
}
EXPECTED |= {
    f'imagenet/resnet18-w32_{row}_1xb32_digits.py': {'backbone': BACKBONES[row][0]}
    for row in ('gn-ws', 'bcn', 'mabn', 'frn', 'iternorm')
}
EXPECTED |= {
    f'imagenet/resnet50_{row}_8xb32_imagenet.py': {'backbone': BACKBONES[row][1]}
    for row in ('bcn', 'mabn', 'frn', 'iternorm', 'sw')
}
