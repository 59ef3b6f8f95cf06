"""Figures of runs: loss curves, learned ratios, detections beside the ground truth."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle

from .runs import Run

__all__ = ['plot_detections', 'plot_losses', 'plot_ratios', 'read_ratios']

# By number of logits: SN with all three normalizers, and the released 1-image form without BN.
_MIXED = {3: ('IN', 'LN', 'BN'), 2: ('IN', 'LN')}
_COLOURS = {'IN': '#4477aa', 'LN': '#ee9944', 'BN': '#55aa66'}


def plot_losses(runs: Sequence[Run], path: str | Path) -> None:
    """Write the training losses of ``runs`` over iterations."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout='constrained')
    for run in runs:
        iterations = [record['iter'] for record in run.train]
        axes.plot(iterations, [record['loss'] for record in run.train], label=run.name)
    axes.set(xlabel='iteration', ylabel='training loss (mean since the last point)')
    axes.legend()
    _save(figure, path)


def read_ratios(checkpoint: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """The ratios of every SN layer in a checkpoint of ours, in the model's order.

    Returns:
        Layer name → {'mean': (K,), 'variance': (K,)}, after the softmax.

    Raises:
        ValueError: the checkpoint has no SN layer.
    """
    state = torch.load(checkpoint, map_location='cpu', weights_only=True)
    state = state.get('state_dict', state)
    ratios = {}
    for key, logits in state.items():
        if key.endswith('.mean_weight'):
            layer = key.removesuffix('.mean_weight')
            ratios[layer] = {
                'mean': logits.softmax(0).numpy(),
                'variance': state[f'{layer}.var_weight'].softmax(0).numpy(),
            }
    if not ratios:
        raise ValueError(f'{checkpoint} has no SN layer (no key ends in .mean_weight)')
    return ratios


def plot_ratios(checkpoint: str | Path, path: str | Path) -> None:
    """Write stacked bars of the ratios per SN layer, of means and of variances."""
    ratios = read_ratios(checkpoint)
    figure, rows = plt.subplots(2, figsize=(8, 6), sharex=True, layout='constrained')
    for axes, kind in zip(rows, ('mean', 'variance'), strict=True):
        for position, layer in enumerate(ratios):
            bottom, values = 0.0, ratios[layer][kind]
            for name, value in zip(_MIXED[len(values)], values, strict=True):
                axes.bar(position, value, bottom=bottom, color=_COLOURS[name], width=0.85)
                bottom += value
        axes.set(ylabel=f'ratio of {kind}s', ylim=(0, 1), xlim=(-0.6, len(ratios) - 0.4))
    rows[1].set_xticks(range(len(ratios)), ratios, rotation=90, fontsize=7)
    names = _MIXED[max(len(r['mean']) for r in ratios.values())]
    figure.legend(
        [Rectangle((0, 0), 1, 1, color=_COLOURS[name]) for name in names],
        names,
        loc='outside upper center',
        ncols=len(names),
    )
    _save(figure, path)


def plot_detections(
    rows: Sequence[tuple[np.ndarray, Sequence, Sequence]], titles: tuple[str, str], path: str | Path
) -> None:
    """Write pairs of pictures: the ground truth on the left, the detections on the right.

    Args:
        rows: (image, truth, detections): image (H, W, 3) uint8 RGB; truth and detections are
            sequences of ((x1, y1, x2, y2) in pixels, label text).
        titles: of the two columns.
        path: the file to write.
    """
    figure, grid = plt.subplots(
        (len(rows) + 1) // 2, 4, figsize=(11, 2.9 * ((len(rows) + 1) // 2)), layout='constrained'
    )
    grid = np.atleast_2d(grid)
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
    _save(figure, path)


def _save(figure, path: str | Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)
