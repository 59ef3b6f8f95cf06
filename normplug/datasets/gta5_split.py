"""Write lists of names from GTA5's split: ``python -m normplug.datasets.gta5_split SPLIT``.

Needs SciPy, which reads MATLAB's files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from normplug.files import write

__all__ = ['write_lists']

_PARTS = ('train', 'val', 'test')


def write_lists(split: Path) -> dict[str, int]:
    """Write ``train.txt``, ``val.txt`` and ``test.txt`` beside ``split``, the ``split.mat``.

    Returns:
        The number of names in each: 12403, 6382 and 6181 for the released file.

    Raises:
        ValueError: the file is not the split of GTA5.
        WriteError: a list cannot be written.
    """
    from scipy.io import loadmat

    with open(split, 'rb') as file:
        try:
            found = loadmat(file)
            numbers = {part: found[f'{part}Ids'].ravel().tolist() for part in _PARTS}
        except Exception as error:  # SciPy raises many kinds of errors for other files
            raise ValueError(f'{split} is not the split.mat of GTA5: {error!r}') from error
    for part, chosen in numbers.items():
        names = [f'{number:05d}\n' for number in chosen]
        write(split.with_name(f'{part}.txt'), ''.join(names).encode())
    return {part: len(chosen) for part, chosen in numbers.items()}


def _main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print('usage: python -m normplug.datasets.gta5_split data/gta5/split.mat', file=sys.stderr)
        return 2
    try:
        counts = write_lists(Path(arguments[0]))
    except (OSError, ValueError) as error:
        print(f'gta5_split: {error}', file=sys.stderr)
        return 2
    for part, count in counts.items():
        print(f'{Path(arguments[0]).with_name(part + ".txt")}: {count} names')
    return 0


if __name__ == '__main__':
    raise SystemExit(_main(sys.argv[1:]))
