"""Table 3 with the same box head in all rows, and batch norm where Table 3 has none.

The published rows have GN in a head of four convolutions and SN beside one of two layers, so that
they differ in more than the norm.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..rows import Row, Scale
from .detection import TABLE3

__all__ = ['TABLE3_HEADS']

_TWO_LAYERS, _CONVOLUTIONS = '2 fc', '4 conv'
_TYPES = {_TWO_LAYERS: 'Shared2FCBBoxHead', _CONVOLUTIONS: 'Shared4Conv1FCBBoxHead'}
_ROWS = {row.name: row for row in TABLE3.rows}
# The head that Table 3's row has.
_PUBLISHED = {
    'BN*/-': _TWO_LAYERS,
    'BN*/GN': _CONVOLUTIONS,
    'BN*/SN': _TWO_LAYERS,
    'GN/GN': _CONVOLUTIONS,
    'SN/SN': _TWO_LAYERS,
}
# Rows that Table 3 lacks are its first one and these options.
_BN_NECK = {'model.neck.norm_cfg.type': 'BN'}
_BN_BACKBONE = {
    'model.backbone.norm_cfg.requires_grad': True,
    'model.backbone.norm_eval': False,
}
_ADDED = {'BN*/BN': _BN_NECK, 'BN/BN': {**_BN_BACKBONE, **_BN_NECK}}
# Norm → what the convolutions of the head get, as the row's other places have it; GN's rows have
# theirs.
_IN_HEAD: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    'BN': {'real': {'type': 'BN'}, 'digits': {'type': 'BN'}},
    'SN': {
        'real': {'type': 'SN', 'momentum': 0.003, 'released_statistics': True},
        'digits': {'type': 'SN', 'momentum': 0.1},
    },
}


def _options(name: str, head: str, data: str) -> Mapping[str, Any]:
    options: dict[str, Any] = dict(_ADDED.get(name, {}))
    if _PUBLISHED.get(name, _TWO_LAYERS) == head:
        return options
    options['model.roi_head.bbox_head.type'] = _TYPES[head]
    norm = name.rpartition('/')[2]
    if head == _CONVOLUTIONS and norm in _IN_HEAD:
        norm_cfg = _IN_HEAD[norm][data]
        options |= {f'model.roi_head.bbox_head.norm_cfg.{k}': v for k, v in norm_cfg.items()}
    return options


def _scale(name: str, head: str, data: str) -> Scale:
    scale = _ROWS[name if name in _ROWS else 'BN*/-'].at(data)
    options = _options(name, head, data)
    if not options:
        return scale
    words = [*([] if name in _ROWS else [name.lower()]), head]
    variant = ''.join(f'_{word}' for word in words)
    variant = variant.replace('bn*', 'frozen-bn').replace('/', '-').replace(' ', '')
    return Scale(scale.config, variant=variant, options=options)


def _row(name: str, head: str) -> Row:
    real, digits = (_scale(name, head, data) for data in ('real', 'digits'))
    published = _ROWS[name].published if _PUBLISHED.get(name) == head else {}
    return Row(f'{name}, {head}', real, digits, published, group=head)


TABLE3_HEADS = replace(
    TABLE3,
    name='table3-heads',
    title='Table 3 with one box head in all rows (backbone/FPN and convolutions of the head; '
    '* frozen)',
    source=f'{TABLE3.source}; of five rows, which are those of `table3`. Which box heads they had '
    'is not known',
    rows=tuple(
        _row(name, head)
        for head in _TYPES
        for name in ('BN*/-', 'BN*/BN', 'BN/BN', 'BN*/GN', 'GN/GN', 'BN*/SN', 'SN/SN')
    ),
)
