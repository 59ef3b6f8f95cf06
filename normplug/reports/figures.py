"""Figures of runs: loss curves, learned ratios, detections beside the ground truth."""

from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .ratios import STATISTICS, Ratios, normalizers_in
from .runs import Run

__all__ = [
    'plot_batch_noise',
    'plot_detections',
    'plot_evolution',
    'plot_losses',
    'plot_metric',
    'plot_ratios',
]

_COLOURS = {'IN': '#4477aa', 'LN': '#ee9944', 'BN': '#55aa66', 'IW': '#66ccee', 'BW': '#bbcc33'}
_KINDS = {
    'measured': {'color': '#4477aa', 'marker': 'o', 'markersize': 4, 'linestyle': ''},
    'law': {'color': '#888888', 'drawstyle': 'steps-mid'},
}


def plot_losses(runs: Sequence[Run]) -> Figure:
    """The training losses of ``runs`` over iterations; of runs of one name, the mean."""
    figure = Figure(figsize=(6.4, 3.6), layout='constrained')
    axes = figure.subplots()
    for name, own in _by_name(runs):
        losses = [{record['iter']: record['loss'] for record in run.train} for run in own]
        axes.plot(*_mean(losses), label=name)
    axes.set(xlabel='iteration', ylabel='training loss (mean since the last point)')
    axes.legend()
    return figure


def plot_metric(runs: Sequence[Run], metric: str) -> Figure:
    """The evaluations of ``runs`` by ``metric``, over epochs or iterations as they count.

    Of runs of one name, the mean.
    """
    figure = Figure(figsize=(6.4, 3.6), layout='constrained')
    axes = figure.subplots()
    for name, own in _by_name(runs):
        steps, values = _mean(
            [{r['step']: r[metric] for r in run.val if metric in r} for run in own]
        )
        if steps:
            axes.plot(steps, values, marker='o', label=name)
    axes.set(xlabel='step of the evaluation', ylabel=metric)
    axes.legend()
    return figure


def _by_name(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    names = dict.fromkeys(run.name for run in runs)
    return [(name, [run for run in runs if run.name == name]) for name in names]


def _mean(curves: Sequence[Mapping[int, float]]) -> tuple[list[int], list[float]]:
    """Steps that all curves have, and the mean there."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return steps, [mean(curve[step] for curve in curves) for step in steps]


def plot_ratios(ratios: Ratios) -> Figure:
    """Stacked bars of the ratios per layer, of means and of variances."""
    width = max(8.0, 0.24 * len(ratios))
    figure = Figure(figsize=(width, 6), layout='constrained')
    rows = figure.subplots(2, sharex=True)
    for axes, kind in zip(rows, STATISTICS, strict=True):
        for position, layer in enumerate(ratios):
            bottom = 0.0
            for name, value in ratios[layer][kind].items():
                axes.bar(position, value, bottom=bottom, color=_COLOURS[name], width=0.85)
                bottom += value
        axes.set(ylabel=f'ratio of {kind}s', ylim=(0, 1), xlim=(-0.6, len(ratios) - 0.4))
    rows[1].set_xticks(range(len(ratios)), ratios, rotation=90, fontsize=7)
    names = normalizers_in([ratios])
    figure.legend(
        [Rectangle((0, 0), 1, 1, color=_COLOURS[name]) for name in names],
        names,
        loc='outside upper center',
        ncols=len(names),
    )
    return figure


def plot_evolution(evolution: dict[int, Ratios]) -> Figure:
    """The ratios of every layer (down) over the iterations (across) as brightness.

    Args:
        evolution: iterations done → ratios; of the same layers at all of them.
    """
    steps, layers = list(evolution), list(next(iter(evolution.values())))
    names = normalizers_in(evolution.values())
    size = (1.5 + 3 * len(names), 1.5 + 0.3 * len(layers))
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(2, len(names), sharex=True, sharey=True, squeeze=False)
    for row, kind in zip(grid, STATISTICS, strict=True):
        for axes, name in zip(row, names, strict=True):
            values = [
                [evolution[step][layer][kind].get(name, np.nan) for step in steps]
                for layer in layers
            ]
            # One more edge than columns: a record holds until the next.
            edges = [*steps, steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)]
            mesh = axes.pcolormesh(edges, range(len(layers) + 1), values, vmin=0, vmax=1)
            axes.set_title(f'{name}, {kind}s', fontsize=9)
        row[0].set_yticks(np.arange(len(layers)) + 0.5, layers, fontsize=6)
    grid[0, 0].invert_yaxis()
    for axes in grid[1]:
        axes.set_xlabel('iteration')
    figure.colorbar(mesh, ax=grid, label='ratio', shrink=0.5)
    return figure


def plot_batch_noise(layers: Mapping[str, Mapping[str, float]]) -> Figure:
    """The noise of μ_B and of σ_B beside the law's, and ζ, over the layers.

    Args:
        layers: in order of depth → quantities of ``BatchNoiseHook``.
    """
    figure = Figure(figsize=(max(8.0, 0.24 * len(layers)), 8), layout='constrained')
    rows = figure.subplots(3, sharex=True)
    lines = [
        (r'$\mathrm{var}(\mu_B)\,/\,\sigma_P^2$', ('mean_noise', 'measured'), ('mean_law', 'law')),
        (r'$\mathrm{var}(\sigma_B)\,/\,\sigma_P^2$', ('std_noise', 'measured'), ('std_law', 'law')),
        (r'$\zeta$', ('zeta', 'measured')),
    ]
    for axes, (label, *quantities) in zip(rows, lines, strict=True):
        for quantity, kind in quantities:
            # No logarithm of what is 0 or unknown.
            values = [found.get(quantity, 0) or np.nan for found in layers.values()]
            axes.plot(values, label=kind, **_KINDS[kind])
        if any(found.get(quantities[0][0], 0) > 0 for found in layers.values()):
            axes.set_yscale('log')
        axes.set(ylabel=label, xlim=(-0.6, len(layers) - 0.4))
    rows[2].set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    figure.legend(*rows[0].get_legend_handles_labels(), loc='outside upper center', ncols=2)
    return figure


def plot_detections(
    rows: Sequence[tuple[np.ndarray, Sequence, Sequence]], titles: tuple[str, str]
) -> Figure:
    """Pairs of pictures: the ground truth on the left, the detections on the right.

    Args:
        rows: (image, truth, detections): image (H, W, 3) uint8 RGB; truth and detections are
            sequences of ((x1, y1, x2, y2) in pixels, label text).
        titles: of the two columns.
    """
    lines = (len(rows) + 1) // 2
    figure = Figure(figsize=(11, 2.9 * lines), layout='constrained')
    grid = figure.subplots(lines, 4, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for index, (image, *columns) in enumerate(rows):
        line, first = divmod(index, 2)
        for side, boxes in enumerate(columns):
            axes = grid[line, 2 * first + side]
            axes.imshow(image)
            axes.set_title(titles[side], fontsize=9)
            for (x1, y1, x2, y2), text in boxes:
                colour = ('#33dd55', '#ffdd22')[side]
                axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour))
                label = {'facecolor': colour, 'pad': 0.5, 'edgecolor': 'none'}
                axes.text(x1, y1, text, fontsize=7, bbox=label, va='bottom')
    return figure
