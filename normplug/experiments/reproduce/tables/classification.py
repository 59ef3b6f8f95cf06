"""ImageNet: normalizers against batch size, their comparison, and IBN-Net."""

from ..rows import Column, Row, Scale, Table

__all__ = ['BATCH_SIZE', 'COMPARISON', 'IBN_IMAGENET']

_TOP1 = Column('top-1', 'accuracy/top1')
_RATIOS = tuple(
    Column(f'ratio of {name}', f'ratio/{name}', factor=100, higher_is_better=None)
    for name in ('BN', 'IN', 'LN')
)
_AT_DIGITS = (
    'ResNet-18 of half the width on digits of 48x48 pixels; 32 images for the gradient, statistics '
    'over groups of them; GN, which has no batch, is one training for all its rows'
)
# Images a GPU → (#GPUs, images) of a gradient of 32 images, as one process computes it.
_DIGITS = {32: '1xb32', 16: '2xb16', 8: '4xb8', 4: '8xb4', 2: '16xb2', 1: '32xb1'}


def _scales(norm: str, real: str, images: int) -> tuple[Scale, Scale]:
    # Group norm has no batch: at digits scale one training stands for all.
    digits = _DIGITS[32 if norm == 'GN' else images]
    return (
        Scale(f'imagenet/resnet50_{norm.lower()}_{real}_imagenet'),
        Scale(f'imagenet/resnet18-w32_{norm.lower()}_{digits}_digits'),
    )


# Of the gradient and of the statistics → the config's (#GPUs, images).
_SETTINGS = {(256, 32): '8xb32', (256, 4): '64xb4', (32, 4): '8xb4'}


def _compared(norm: str, setting: tuple[int, int], top1: float | None) -> Row:
    real, digits = _scales(norm, _SETTINGS[setting], setting[1])
    # At digits scale there is one batch for the gradient, and BN is no worse off than others.
    of_one_gradient = setting[0] == 256
    published_at_all = not (norm in ('BN', 'GN') and setting == (256, 4)) and (
        norm != 'KN' or of_one_gradient
    )
    return Row(
        f'{norm} {setting}',
        real if published_at_all else None,
        digits if of_one_gradient else None,
        {_TOP1.name: top1},
        group=str(setting),
    )


COMPARISON = Table(
    'comparison',
    'ResNet-50 on ImageNet, (images for the gradient, images for the statistics)',
    "Luo, VALSE 2018, slide 'Comparisons'",
    (_TOP1,),
    tuple(
        _compared(norm, setting, top1)
        for setting, numbers in {
            (256, 32): (76.4, 75.9, 77.2, 76.8),
            (32, 4): (72.7, 75.8, 75.9, None),
            (256, 4): (None, None, 77.2, 76.1),
        }.items()
        for norm, top1 in zip(('BN', 'GN', 'SN', 'KN'), numbers, strict=True)
        if (norm, setting) != ('KN', (32, 4))  # neither published nor trained
    ),
    _AT_DIGITS,
)

# README of Switchable-Normalization: (8, images), top-1 in per cent.
_BY_BATCH = {
    'BN': {32: 76.4, 16: 76.3, 8: 75.2, 4: 72.7, 2: 65.3, 1: None},
    'GN': {32: 75.9, 16: 75.8, 8: 76.0, 4: 75.8, 2: 75.9, 1: 75.5},
    'SN': {32: 76.9, 16: 76.7, 8: 76.7, 4: 75.9, 2: 75.6, 1: 75.0},
    'KN': dict.fromkeys((32, 16, 8, 4, 2, 1)),
}
# Its second blog figure, read by eye: BN, IN, LN.
_RATIOS_BY_BATCH = {
    32: (58, 16, 25),
    16: (52, 19, 29),
    8: (40, 21, 39),
    4: (26, 25, 48),
    2: (14, 31, 55),
    1: (0, 52, 48),
}


def _at_batch(norm: str, images: int, top1: float | None) -> Row:
    real, digits = _scales(norm, f'8xb{images}', images)
    published = {_TOP1.name: top1}
    if norm == 'SN':
        names = (column.name for column in _RATIOS)
        published |= dict(zip(names, _RATIOS_BY_BATCH[images], strict=True))
    # KN has configs for the batch of its paper alone; BN with one image did not converge there.
    has_real = (norm, images) != ('BN', 1) and (norm != 'KN' or images == 32)
    name, real = f'{norm} (8, {images})', real if has_real else None
    return Row(name, real, digits, published, norm, images, group=norm)


BATCH_SIZE = Table(
    'batch-size',
    'ResNet-50 on ImageNet by (#GPUs, images a GPU), and what SN learned (per cent)',
    'README and blog of Switchable-Normalization',
    (_TOP1, *_RATIOS),
    tuple(
        _at_batch(norm, images, top1)
        for norm, numbers in _BY_BATCH.items()
        for images, top1 in numbers.items()
    ),
    _AT_DIGITS,
)

_ERROR = Column('top-1 error', 'accuracy/top1', is_error=True, higher_is_better=False)
_TOP5_ERROR = Column('top-5 error', 'accuracy/top5', is_error=True, higher_is_better=False)


def _ibn(name: str, net: str, norm: str, digits: str | None, *errors: float) -> Row:
    return Row(
        name,
        Scale(f'imagenet/{net}_{norm}_8xb32_imagenet'),
        digits and Scale(f'imagenet/resnet18-w32_{digits}_1xb32_digits'),
        dict(zip((_ERROR.name, _TOP5_ERROR.name), errors, strict=True)),
        group=net,
    )


IBN_IMAGENET = Table(
    'ibn-imagenet',
    'IBN-Net-a on ImageNet, against the same network without it',
    'Luo, VALSE 2018, slides of IBN-Net (Table 2)',
    (_ERROR, _TOP5_ERROR),
    (
        _ibn('ResNet50', 'resnet50', 'bn', 'bn', 24.27, 7.08),
        _ibn('IBN-Net50-a', 'resnet50', 'ibn-a', 'ibn-a', 22.54, 6.32),
        _ibn('ResNet101', 'resnet101', 'bn', None, 22.48, 6.23),
        _ibn('IBN-Net101-a', 'resnet101', 'ibn-a', None, 21.39, 5.59),
    ),
    'ResNet-18 of half the width on digits of 48x48 pixels',
)
