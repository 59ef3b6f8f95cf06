"""The verdict, and the files to attach to an issue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from normplug.bench import report as bench_report
from normplug.reports.tables import facts, markdown

from .checks import Result

__all__ = ['NAME', 'files', 'summary', 'verdict']

NAME = 'gpu_check'
_STATES = ('ok', 'failed', 'skipped')
# All rows of these groups are reported; of the other groups those that are not ok.
_TELLING = ('environment', 'waits', 'order', 'launches', 'ranks', 'layers', 'model')


def verdict(results: Sequence[Result], device: str) -> str:
    """One or two plain sentences."""
    number = {state: sum(result.state == state for result in results) for state in _STATES}
    made = number['ok'] + number['failed']
    if not made:
        text = 'Nothing was checked.'
    elif number['failed']:
        text = f'{number["failed"]} of {made} checks FAILED.'
    else:
        text = f'All {made} checks passed.'
    if number['skipped']:
        text += f' {number["skipped"]} were skipped.'
    return text if device != 'cpu' else f'{text} This was the CPU: no GPU was checked.'


def summary(results: Sequence[Result]) -> list[dict[str, str | int]]:
    """A row for each group."""
    rows = []
    for group in dict.fromkeys(result.group for result in results):
        own = [result for result in results if result.group == group]
        counts = {state: sum(result.state == state for result in own) for state in _STATES}
        seconds = sum(result.seconds for result in own)
        rows.append({'group': group, **counts, 'seconds': f'{seconds:.1f}'})
    return rows


def files(
    results: Sequence[Result],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    source: Mapping[str, Any],
    device: str,
) -> dict[str, bytes]:
    """Markdown and JSON by file name.

    Args:
        results: of all checks.
        tables: rows of measurements by the names of ``normplug.bench.report``.
        source: where they come from: ``normplug.reports.provenance``.
        device: 'cuda' or 'cpu'.
    """
    parts = [f'# GPU check: {source["machine"]}\n', f'{verdict(results, device)}\n']
    parts.append(markdown(('group', *_STATES, 'seconds'), summary(results)))
    shown = [r for r in results if r.state != 'ok' or r.group in _TELLING]
    for state in ('failed', 'ok', 'skipped'):
        rows = [
            {'group': r.group, 'check': r.name, 'seen': r.seen} for r in shown if r.state == state
        ]
        if rows:
            parts.append(f'## {state.capitalize()}\n')
            parts.append(markdown(('group', 'check', 'seen'), rows))
    for name, rows in tables.items():
        parts.append(f'## Measured: {name}\n\n{bench_report.table(name, rows, {}).decode()}')
    parts.append(facts(source))
    data = {
        'verdict': verdict(results, device),
        'device': device,
        'source': dict(source),
        'results': [result._asdict() for result in results],
        'tables': dict(tables),
    }
    return {
        f'{NAME}.md': ('\n'.join(parts).rstrip('\n') + '\n').encode(),
        f'{NAME}.json': (json.dumps(data, indent=1, default=str) + '\n').encode(),
    }
