"""The figure of an experiment: error against normalization batch, a line a normalizer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from .report import Summary

__all__ = ['figure']


def figure(summaries: Sequence[Summary]) -> bytes:
    """A PNG; a normalizer without normalization batches is a level with a band of one std.

    Cells without a mean are left out, and the line goes around them.
    """
    picture, axes = plt.subplots(figsize=(6.4, 4), layout='constrained')
    batches = sorted({s.batch for s in summaries if s.batch is not None})
    for index, norm in enumerate(dict.fromkeys(s.norm for s in summaries)):
        own = [s for s in summaries if s.norm == norm and s.mean is not None]
        colour, name = f'C{index}', norm.upper()
        for level in (s for s in own if s.batch is None):
            axes.axhline(level.mean, color=colour, linestyle='--', label=name)
            spread = level.std or 0
            axes.axhspan(level.mean - spread, level.mean + spread, color=colour, alpha=0.15)
        points = sorted((s for s in own if s.batch is not None), key=lambda s: s.batch)
        if points:
            axes.errorbar(
                [s.batch for s in points],
                [s.mean for s in points],
                [s.std or 0 for s in points],
                color=colour,
                marker='o',
                capsize=3,
                label=name,
            )
    if batches:
        axes.set_xscale('log', base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.minorticks_off()
    axes.set(xlabel='normalization batch (images)', ylabel='validation error (%)')
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    buffer = io.BytesIO()
    picture.savefig(buffer, dpi=120, format='png')
    plt.close(picture)
    return buffer.getvalue()
