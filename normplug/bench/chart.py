"""A bar chart of the measured times, with a line for batch norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from normplug.reports.output import png

__all__ = ['chart']


def chart(
    rows: Sequence[Mapping[str, Any]],
    panel: Sequence[str],
    group: Sequence[str],
    bar: Sequence[str],
    title: str,
) -> bytes:
    """A PNG of each row's 'ratio'.

    Args:
        rows: with 'ratio' and all columns named below.
        panel: columns of which each combination gets axes of its own.
        group: columns that name a place along the axis.
        bar: columns that name a bar within a group.
        title: of the whole, such as where the figures come from.
    """
    panels: dict[str, list] = {}
    for row in rows:
        panels.setdefault(_key(row, panel), []).append(row)
    bars = list(dict.fromkeys(_key(row, bar) for row in rows))
    longest = max(len({_key(row, group) for row in own}) for own in panels.values())
    size = (2.5 + 0.16 * longest * len(bars) + 0.4 * longest, 1 + 3 * len(panels))
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(len(panels), squeeze=False)
    width = 1 / (len(bars) + 1)
    for axes, (name, own) in zip(grid[:, 0], panels.items(), strict=True):
        groups = list(dict.fromkeys(_key(row, group) for row in own))
        for row in own:
            index = bars.index(_key(row, bar))
            place = groups.index(_key(row, group)) + (index + 0.5) * width
            axes.bar(place, row['ratio'], 0.9 * width, color=f'C{index}')
        axes.axhline(1, color='black', linewidth=0.8)
        ticks = [place + 0.5 - width / 2 for place in range(len(groups))]
        axes.set_xticks(ticks, [name.replace(', ', '\n') for name in groups], fontsize=7)
        axes.set_title(name, fontsize=9)
        axes.set_ylabel(f'time / {own[0]["ratio_to"]}')
    patches = [Rectangle((0, 0), 1, 1, color=f'C{index}') for index in range(len(bars))]
    figure.legend(patches, bars, loc='outside right upper', fontsize=8)
    figure.suptitle(title, fontsize=7)
    return png(figure)


def _key(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return ', '.join(str(row[name]) for name in columns if row[name] != '')
