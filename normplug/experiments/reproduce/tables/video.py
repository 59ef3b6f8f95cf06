"""Table 6: I3D on Kinetics, by clips per GPU."""

from ..rows import Column, Row, Scale, Table, Test

__all__ = ['TABLE6']

_CLIPS = '10 clips'
_TOP1 = Column('top-1', 'acc/top1', _CLIPS, factor=100)
_TOP5 = Column('top-5', 'acc/top5', _CLIPS, factor=100)
# What the training itself ends with.
_ONE_CLIP = Column('top-1, 1 clip', 'acc/top1', factor=100)

# Norm → clips per GPU → (top-1, top-5), in per cent.
_PUBLISHED = {
    'BN': {8: (73.2, 90.9), 4: (72.1, 90.0)},
    'GN': {8: (73.0, 90.6), 4: (72.8, 90.6)},
    'SN': {8: (73.5, 91.3), 4: (73.3, 91.2)},
}
# In no table.
_OTHERS = ('SSN', 'KN', 'IBN-a', 'GhostBN')


def _row(norm: str, clips: int) -> Row:
    config = norm.lower().replace('ghostbn', 'ghost-bn')
    tests = (Test(_CLIPS),)
    published = _PUBLISHED.get(norm, {}).get(clips, ())
    return Row(
        f'{norm}, {clips} clips',
        Scale(f'i3d/i3d_r50_{config}_8xb{clips}_kinetics', tests),
        Scale(f'i3d/i3d_r18-w32_{config}_1xb{clips}_digits', tests),
        dict(zip((_TOP1.name, _TOP5.name), published, strict=False)),
        group=str(clips),
    )


TABLE6 = Table(
    'table6',
    'I3D ResNet-50 on Kinetics, 32 frames, by clips per GPU; GhostBN: statistics of 2 clips',
    'Luo, VALSE 2018, slides of Switchable Normalization',
    (_TOP1, _TOP5, _ONE_CLIP),
    tuple(_row(norm, clips) for clips in (8, 4) for norm in (*_PUBLISHED, *_OTHERS)),
    'ResNet-18 of half the width on clips of 8 frames of 48x48 pixels, digits that move, in 8 '
    'classes; 8 or 4 clips for the gradient and the statistics',
)
