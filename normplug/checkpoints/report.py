"""The report of a conversion."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .source import few

__all__ = ['Report']


@dataclass
class Report:
    """What a conversion did with the tensors of a checkpoint.

    Attributes:
        path: the file.
        network: what it is of, e.g. ``'released ResNet-50'``.
        total: number of its tensors.
        norms: e.g. ``{'BN → SN': 53}``.
        renamed: old → new name.
        anew: names in the result that have no counterpart in the file.
        unused: names in the file that the result does not use.
        lacking: names in the layout that neither the file nor the result has.
        notes: further lines.
    """

    path: str
    network: str
    total: int
    norms: Counter[str] = field(default_factory=Counter)
    renamed: dict[str, str] = field(default_factory=dict)
    anew: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The lines for a log."""
        norms = ', '.join(f'{number} {kind}' for kind, number in self.norms.items())
        lines = [
            f'{self.path}: {self.network}; norm layers: {norms}',
            f'used: {self.total - len(self.unused)} of {self.total} tensors',
        ]
        if self.renamed:
            pairs = [f'{old} → {new}' for old, new in self.renamed.items()]
            lines.append(f'renamed: {len(pairs)}: {few(pairs, 3)}')
        if self.anew:
            leaves = Counter(name.rsplit('.', 1)[-1] for name in self.anew)
            counts = ', '.join(f'{number} {leaf}' for leaf, number in leaves.items())
            lines.append(f'not in the file, initialized: {len(self.anew)} ({counts})')
        if self.lacking:
            lines.append(f'missing: {len(self.lacking)}: {few(self.lacking)}')
        if self.unused:
            lines.append(f'not used: {len(self.unused)}: {few(self.unused)}')
        return '\n  '.join([*lines, *self.notes])
