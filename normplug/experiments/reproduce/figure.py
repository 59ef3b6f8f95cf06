"""The figure of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .rows import Column, Table
from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ['figure']


def figure(table: Table, where: str, summaries: Sequence[Summary]) -> Figure:
    """Curves over images of the statistics where the rows have them, else a point a row.

    What is not finished is left out, a seed that diverged is told; ``where`` says of ours what they
    are.
    """
    draw = _curves if any(summary.row.images for summary in summaries) else _points
    picture = draw(table, where, summaries)
    picture.suptitle(table.name, fontsize=10)
    return picture


def _points(table: Table, where: str, summaries: Sequence[Summary]) -> Figure:
    """The first column, ours on the left and the paper's on the right, each on its own axis."""
    column = table.columns[0]
    height = 1.2 + 0.35 * len(summaries)
    picture = Figure(figsize=(9, height), layout='constrained')
    sides = picture.subplots(1, 2, sharey=True)
    names = []
    for place, summary in enumerate(summaries):
        cell = summary.cells[column.name]
        if cell.mean is not None:
            sides[0].errorbar(cell.mean, place, xerr=cell.std or 0, fmt='o', color='C0', capsize=3)
        sides[0].plot(cell.values, [place] * len(cell.values), '|', color='C0', alpha=0.5)
        names.append(f'{summary.row.name}\n{cell}' if cell.diverged else summary.row.name)
        if cell.published is not None:
            sides[1].plot(cell.published, place, 's', color='C1')
    sides[0].set_yticks(range(len(summaries)), names)
    sides[0].invert_yaxis()
    for axes, whose in zip(sides, (where, 'published'), strict=True):
        axes.set(xlabel=f'{column.name} (%), {whose}')
        axes.grid(alpha=0.3)
    return picture


def _curves(table: Table, where: str, summaries: Sequence[Summary]) -> Figure:
    """Left, the first column of each norm against images of the statistics.

    Right, what SN learned there, or else each norm's second column.
    """
    first, *others = table.columns
    with_ratios = any(column.metric.startswith('ratio/') for column in others)
    picture = Figure(figsize=(10, 4), layout='constrained')
    sides = picture.subplots(1, 2)
    _norms(sides[0], summaries, first)
    right = f'ratio, {where}; dashed: published (%)'
    if with_ratios:
        _ratios(sides[1], summaries, others)
    elif others:
        _norms(sides[1], summaries, others[0])
        right = f'{others[0].name}, {where}'
    images = sorted({summary.row.images for summary in summaries if summary.row.images})
    for axes, label in zip(sides, (f'{first.name}, {where} (%)', right), strict=True):
        axes.set_xscale('log', base=2)
        axes.set_xticks(images, [str(count) for count in images])
        axes.minorticks_off()
        axes.set(xlabel='images of the statistics', ylabel=label)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return picture


def _norms(axes: Axes, summaries: Sequence[Summary], column: Column) -> None:
    """A curve of each norm; a dotted line of one that is the same at all images."""
    for index, norm in enumerate(dict.fromkeys(summary.row.norm for summary in summaries)):
        own = [summary for summary in summaries if summary.row.norm == norm]
        if own[0].row.images is None:
            mean = own[0].cells[column.name].mean
            if mean is not None:
                axes.axhline(mean, ls=':', color=f'C{index}', label=norm)
        else:
            _curve(axes, own, column, norm, index)


def _ratios(axes: Axes, summaries: Sequence[Summary], columns: Sequence[Column]) -> None:
    own = [s for s in summaries if any(s.cells[column.name].values for column in columns)]
    for index, column in enumerate(columns):
        _curve(axes, own, column, column.name, index)
        published = [(s.row.images, s.cells[column.name].published) for s in own]
        points = sorted(point for point in published if point[1] is not None)
        if points:
            axes.plot(*zip(*points, strict=True), '--', color=f'C{index}', alpha=0.5)


def _curve(
    axes: Axes, summaries: Sequence[Summary], column: Column, label: str, index: int
) -> None:
    """Means with deviations against images, in colour ``index``."""
    ordered = sorted(summaries, key=lambda summary: summary.row.images)
    cells = [(s.row.images, s.cells[column.name]) for s in ordered]
    points = [(n, cell.mean, cell.std or 0) for n, cell in cells if cell.mean is not None]
    if points:
        x, y, error = zip(*points, strict=True)
        axes.errorbar(x, y, error, marker='o', capsize=3, color=f'C{index}', label=label)
