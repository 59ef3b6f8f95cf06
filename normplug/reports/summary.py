"""One figure of several trainings that differ by their seeds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev

__all__ = ['SeedSummary']


@dataclass(frozen=True)
class SeedSummary:
    """Mean and spread.

    Attributes:
        values: of the seeds that are finished.
        seeds: how many were asked for.
        diverged: of how many the loss became NaN or Inf.
    """

    values: tuple[float, ...]
    seeds: int
    diverged: int = 0

    @property
    def mean(self) -> float | None:
        """Over the seeds; None if there is none, or if one diverged: the rest is a selection."""
        return mean(self.values) if self.values and not self.diverged else None

    @property
    def std(self) -> float | None:
        """Unbiased; None of less than two seeds, or without a mean."""
        return stdev(self.values) if self.mean is not None and len(self.values) > 1 else None

    def __str__(self) -> str:
        """As a table shows it."""
        if self.diverged:
            return f'diverged: {self.diverged} of {self.seeds} seeds'
        if self.mean is None:
            return 'missing'
        text = f'{self.mean:.1f}' if self.std is None else f'{self.mean:.1f} ± {self.std:.1f}'
        few = len(self.values) < self.seeds
        return text + (f' ({len(self.values)} of {self.seeds} seeds)' if few else '')
