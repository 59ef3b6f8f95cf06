"""The finished trainings: a file of JSON lines, which grows by one with each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normplug.errors import UserError

from .cells import Cell

__all__ = ['append_result', 'read_results']


def append_result(path: Path, cell: Cell, row: Mapping[str, Any]) -> None:
    """Add the line of a finished training, and have it on the disk before the next one ends.

    Raises:
        UserError: the file cannot be written.
    """
    line = json.dumps({'norm': cell.norm, 'batch': cell.batch, 'seed': cell.seed, **row})
    try:
        with open(path, 'a', encoding='utf-8') as file:
            file.write(line + '\n')
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f'--work-dir: {path} cannot be written: {error.strerror}') from error


def read_results(path: Path, fingerprints: Mapping[str, str]) -> dict[Cell, dict[str, Any]]:
    """The finished trainings by cell; none where there is no file.

    A last line without its end is of a command that was killed as it wrote: it is removed, and
    its cell counts as not finished.

    Args:
        path: the file.
        fingerprints: normalizer → that of its config now; others' rows are returned unchecked.

    Raises:
        UserError: a line is not one of ours, or is of a training with other settings.
    """
    try:
        text = path.read_text(encoding='utf-8')
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'--work-dir: {path} cannot be read: {error}') from error
    whole = text[: text.rfind('\n') + 1]
    if whole != text:
        os.truncate(path, len(whole.encode()))
    found = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            cell = Cell(row['norm'], row['batch'], row['seed'])
            theirs = row['config']
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f'--work-dir: line {number} of {path} is not that of a training: remove it, or '
                'choose another folder'
            ) from error
        if theirs != fingerprints.get(cell.norm, theirs):
            raise UserError(
                f'--work-dir: {path} holds trainings of {cell.norm} with other settings (its '
                'config, --max-iters or --cfg-options): choose another folder'
            )
        found[cell] = row
    return found
