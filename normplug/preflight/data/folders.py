"""Look files up, with one listing for each folder."""

from __future__ import annotations

import os
from collections import Counter

__all__ = ['IMAGE_SUFFIXES', 'Folders', 'suffixes_in']

IMAGE_SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


class Folders:
    """Tells whether files exist; asks the disk once a folder, not once a file."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        """Whether there is a file (or anything else) at ``path``."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or '.'))
            except OSError:
                self._names[folder] = set()
        return name in self._names[folder]


def suffixes_in(folder: str) -> str:
    """What the files below ``folder`` end in, the most frequent first, for a message."""
    found = Counter(
        os.path.splitext(name)[1] or name for _, _, names in os.walk(folder) for name in names
    )
    if not found:
        return 'it holds no file'
    return 'it holds ' + ', '.join(f'{n} {suffix}' for suffix, n in found.most_common(3))
