"""Table 5; IBN-Net and instance selective whitening (ISW) across Cityscapes and GTA5."""

from collections.abc import Sequence

from ..rows import Column, Row, Scale, Table, Test

__all__ = ['IBN_GTA5', 'TABLE5_ADE20K', 'TABLE5_CITYSCAPES']

_SOURCE = 'Luo, VALSE 2018, slides of '
_SCALES = 'several scales'
_AT_DIGITS = 'ResNet-18 of half the width on digits, 2 images a batch'


def _table5(name: str, data: str, title: str, numbers: dict[str, tuple[float, float]]) -> Table:
    columns = (Column('mIoU', 'mIoU'), Column('mIoU, multi-scale', 'mIoU', _SCALES))
    tests = (Test(_SCALES, tta=True),)
    form = {'ade20k': 'ade', 'cityscapes': 'cityscapes'}[data]
    rows = (
        Row(
            norm,
            Scale(f'fcn/fcn_r50-d8_{norm.lower()}_{data}', tests),
            Scale(f'fcn/fcn_r18-d8-w32_{norm.lower()}_table5_digits-{form}', tests),
            {columns[0].name: single, columns[1].name: multi},
        )
        for norm, (single, multi) in numbers.items()
    )
    return Table(
        name, title, f'{_SOURCE}Switchable Normalization', columns, tuple(rows), _AT_DIGITS
    )


TABLE5_ADE20K = _table5(
    'table5-ade20k',
    'ade20k',
    'ADE20K val, ResNet-50 dilated',
    {'SyncBN': (36.4, 37.7), 'GN': (35.7, 36.3), 'SN': (38.7, 39.2)},
)
TABLE5_CITYSCAPES = _table5(
    'table5-cityscapes',
    'cityscapes',
    'Cityscapes, ResNet-50 dilated (published: test set; here: val)',
    {'SyncBN': (69.7, 73.0), 'GN': (68.4, 73.1), 'SN': (71.2, 75.1)},
)

# Digits by day and by night, each in one light, stand for Cityscapes and GTA5.
_DOMAINS = {'Cityscapes': ('cityscapes', 'cityscapes-day'), 'GTA5': ('gta5', 'cityscapes-night')}
_MODELS = {'ResNet50': 'syncbn', 'IBN-Net50-a': 'ibn-a', 'IBN-Net50-b': 'ibn-b', 'ISW': 'isw'}
_TWO_DOMAINS = (
    Column('mIoU, other domain', 'mIoU', 'other'),
    Column('accuracy, other domain', 'aAcc', 'other'),
    Column('mIoU, same domain', 'mIoU'),
    Column('accuracy, same domain', 'aAcc'),
)


def _trained_on(
    domain: str, model: str, same: Sequence[float] = (), other_domain: Sequence[float] = ()
) -> Row:
    other = next(name for name in _DOMAINS if name != domain)
    norm = _MODELS[model]
    real, digits = (
        [f'ibn_gta5/{net}_{norm}_table6_{prefix}{_DOMAINS[d][index]}' for d in (domain, other)]
        for index, (net, prefix) in enumerate(
            (('fcn_r50-d8', ''), ('fcn_r18-d8-w32', 'digits-')),
        )
    )
    return Row(
        f'{model}, trained on {domain}',
        Scale(real[0], (Test('other', config=real[1]),)),
        Scale(digits[0], (Test('other', config=digits[1]),)),
        {
            column.name: number
            for columns, numbers in ((_TWO_DOMAINS[:2], other_domain), (_TWO_DOMAINS[2:], same))
            for column, number in zip(columns, numbers, strict=False)
        },
        group=domain,
    )


IBN_GTA5 = Table(
    'ibn-gta5',
    'IBN-Net and ISW within and across domains (digits: day for Cityscapes, night for GTA5)',
    f'{_SOURCE}IBN-Net, whose network and recipe all rows here have. ISW (RobustNet, CVPR 2021) '
    'is not in them: its 36.58 is of a later paper with DeepLabV3+, where ResNet50 has 28.95 and '
    'IBN-Net50-b 33.85, and is to be compared with these alone',
    _TWO_DOMAINS,
    (
        _trained_on('Cityscapes', 'ResNet50', (64.5, 93.4), (29.4, 71.9)),
        _trained_on('Cityscapes', 'IBN-Net50-a', (69.1, 94.4), (32.5, 71.4)),
        _trained_on('Cityscapes', 'IBN-Net50-b', (67.0, 94.3), (37.9, 78.8)),
        _trained_on('Cityscapes', 'ISW'),
        _trained_on('GTA5', 'ResNet50', (61.0, 91.5), (22.2, 53.5)),
        _trained_on('GTA5', 'IBN-Net50-a', (64.8, 92.5), (26.0, 60.9)),
        _trained_on('GTA5', 'IBN-Net50-b', (64.2, 92.4), (29.6, 66.8)),
        _trained_on('GTA5', 'ISW', other_domain=(36.58,)),
    ),
    'ResNet-18 of half the width on digits by day (Cityscapes) and by night (GTA5)',
)
