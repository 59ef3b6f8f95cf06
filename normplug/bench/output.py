"""Rows as CSV and as Markdown, and files that are whole or absent."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from normplug.files import write
from normplug.reports.tables import markdown

__all__ = ['to_csv', 'to_markdown', 'write_all']

Row = Mapping[str, Any]


def to_csv(rows: Sequence[Row], source: Row) -> bytes:
    """A line for each row, each with all of its provenance; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], *source], lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value, 6) for name, value in {**row, **source}.items()})
    return text.getvalue().encode()


def to_markdown(
    rows: Sequence[Row], columns: Sequence[str], source: Row, group_by: Sequence[str] = ()
) -> bytes:
    """A table of ``columns`` for each combination of ``group_by``, and the provenance under them.

    Columns that no row of a table fills are left out of it.
    """
    parts = []
    for key, group in groupby(rows, lambda row: tuple(row[name] for name in group_by)):
        table = [{name: _cell(row[name], 3) for name in columns} for row in group]
        filled = [name for name in columns if any(row[name] != '' for row in table)]
        parts += [f'### {", ".join(key)}\n'] if key else []
        parts.append(markdown(filled, table))
    facts = [f'- {name}: `{value}`' for name, value in source.items() if value != '']
    return '\n'.join([*parts, *facts, '']).encode()


def write_all(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write ``files`` by name into ``folder``, replacing what an earlier run left.

    Raises:
        WriteError: a file cannot be written.
    """
    paths = []
    for name, data in files.items():
        write(folder / name, data, '--out')
        paths.append(folder / name)
    return paths


def _cell(value: Any, digits: int) -> Any:
    if value is None:
        return ''
    if not isinstance(value, float):
        return value
    return f'{value:.{digits}g}' if abs(value) < 10**digits else f'{value:.0f}'
