"""What tools/micro_batch.py was: now the table ``batch-size`` of tools/reproduce.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ['main_micro_batch']


def main_micro_batch(argv: Sequence[str] | None = None, prog: str = 'tools/micro_batch.py') -> int:
    """Say what to type instead, and return 2."""
    print(
        f'{prog}: error: this experiment is the table batch-size of tools/reproduce.py now '
        '(docs/micro_batch.md). Type, for example:\n'
        "    python -m normplug reproduce batch-size --seeds 5 --rows 'BN (8, 2)' 'SN (8, 2)'",
        file=sys.stderr,
    )
    return 2
