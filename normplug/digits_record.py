"""Which digits a network was trained on: `digits.json` of its data, in its checkpoint's meta."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ['META_KEY', 'RECORD', 'other_digits', 'record_of']

RECORD = 'digits.json'  # in the folder of each format
META_KEY = 'digits'
# These are in one light, whatever is asked for, and meant to be used beside the others.
_ONE_LIGHT = ('cityscapes_day', 'cityscapes_night')


def record_of(dataset: Any) -> dict | None:
    """Return the record of the digits that a dataset's config reads; None for other data."""
    for root in _roots(dataset):
        try:
            record = json.loads((Path(root) / RECORD).read_text(encoding='utf-8'))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            return record
    return None


def other_digits(meta: Any, dataset: Any) -> str:
    """Return what to tell of a pretraining on other digits than those of ``dataset``; '' if not.

    Sizes, numbers and formats differ between a pretraining and what follows. The seed must not: it
    decides which scans are for validation.

    Args:
        meta: of the pretraining's checkpoint.
        dataset: config of what the training reads.
    """
    theirs, ours = (meta or {}).get(META_KEY), record_of(dataset)
    if not isinstance(theirs, dict) or ours is None:
        return ''
    found = [
        f'{key} {theirs.get(key)}, not {ours.get(key)}'
        for key in ('version', 'seed')
        if theirs.get(key) != ours.get(key)
    ]
    lights = [(record.get('scene') or {}).get('light') for record in (theirs, ours)]
    if lights[0] != lights[1] and ours.get('format') not in _ONE_LIGHT:
        found.append('another light' if all(lights) else f'{"with" if lights[0] else "no"} light')
    return bool(found) * (
        f'WARNING: its training saw other digits than this one reads ({"; ".join(found)}), so that '
        'results cannot be compared with those of the same: pretrain anew, or make the data anew '
        'with tools/make_digits.py'
    )


def _roots(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping):
        if isinstance(config.get('data_root'), str):
            yield config['data_root']
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _roots(part)
