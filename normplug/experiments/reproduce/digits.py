"""The embedded digits that jobs read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from normplug.data.build import FORMATS, DigitsError, DigitsSettings, build_digits, description
from normplug.errors import UserError

__all__ = ['describe_digits', 'digits_formats', 'make_digits']

DIGITS = Path('work_dirs/data/digits')


def digits_formats(cfg: Config) -> list[str]:
    """The formats that a config reads, by the names of tools/make_digits.py."""
    roots = set()
    for phase in ('train', 'val', 'test'):
        dataset = (cfg.get(f'{phase}_dataloader') or {}).get('dataset')
        if isinstance(dataset, dict) and dataset.get('data_root'):
            roots.add(Path(dataset['data_root']))
    return [name for name in FORMATS if DIGITS / name in roots]


def describe_digits(cfg: Config) -> list[dict[str, Any]]:
    """What decides the files of the formats that a config reads."""
    return [description(name, DigitsSettings()) for name in digits_formats(cfg)]


def make_digits(cfgs: Iterable[Config], say: Callable[[str], None]) -> None:
    """Write the formats that configs read and that are not there.

    Raises:
        UserError: other data are there, or nothing can be written.
    """
    read = {name for cfg in cfgs for name in digits_formats(cfg)}
    formats = [name for name in FORMATS if name in read]
    if not formats:
        return
    try:
        build_digits(
            DIGITS, formats, DigitsSettings(), log=lambda s: None if 'already' in s else say(s)
        )
    except DigitsError as error:
        raise UserError(str(error)) from error
