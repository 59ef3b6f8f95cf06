"""Rows as CSV and as Markdown, and where they come from."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

__all__ = ['facts', 'markdown', 'to_csv', 'to_markdown']

Row = Mapping[str, Any]


def to_csv(rows: Sequence[Row], source: Row | None = None, digits: int | None = 6) -> bytes:
    """A line for each row, each with all of its provenance; what was not measured is empty.

    Args:
        rows: columns are those of all of them.
        source: the provenance.
        digits: of floats; None for all that they have.
    """
    columns = dict.fromkeys(name for row in (*rows, source or {}) for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    for row in rows:
        whole = {**row, **(source or {})}
        writer.writerow({name: _cell(value, digits) for name, value in whole.items()})
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
    return '\n'.join([*parts, facts(source)]).encode()


def markdown(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table; a missing cell shows as a dash, and a `|` in one stays in it."""
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + ' --- |' * len(columns)]
    for row in rows:
        cells = ('-' if row.get(name) is None else str(row[name]) for name in columns)
        lines.append('| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |')
    return '\n'.join(lines) + '\n'


def facts(source: Row) -> str:
    """The provenance as a list in Markdown, without what is empty."""
    return ''.join(f'- {name}: `{value}`\n' for name, value in source.items() if value != '')


def _cell(value: Any, digits: int | None) -> Any:
    if value is None:
        return ''
    if not isinstance(value, float) or digits is None:
        return value
    return f'{value:.{digits}g}' if abs(value) < 10**digits else f'{value:.0f}'
