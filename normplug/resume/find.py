"""Find the last checkpoint of a folder from which training can go on."""

from __future__ import annotations

import re
from pathlib import Path

from normplug import checkpoint_file

__all__ = ['last_whole_checkpoint']

_NAME = re.compile(r'(epoch|iter)_(\d+)\.pth')


def last_whole_checkpoint(folder: str | Path) -> tuple[str | None, str]:
    """Find the last checkpoint in ``folder`` that loads and has what a resumed training needs.

    That is the one which ``last_checkpoint`` names. Where there is no such file, or it is empty or
    names a file that is gone or not whole (mmengine's own hook, killed), it is the one of most
    iterations among ``epoch_*.pth`` and ``iter_*.pth`` here and beside the file that it names.

    Returns:
        Its path, or None; and why it is not the one that ``last_checkpoint`` names, or ''.
    """
    folder = Path(folder)
    pointer = folder / 'last_checkpoint'
    text = pointer.read_text().strip() if pointer.is_file() else ''
    folders = [folder]
    if not text:
        reason = f'{pointer} is {"empty" if pointer.is_file() else "missing"}'
    else:
        named = Path(text)
        if _iterations(named) is not None:
            return text, ''
        fault = 'is truncated or holds weights only' if named.is_file() else 'does not exist'
        reason = f'{pointer} names {named}, which {fault}'
        if named.parent.is_dir() and named.parent.absolute() != folder.absolute():
            folders.append(named.parent)
    found = [
        newest
        for place in folders
        for kind in ('epoch', 'iter')
        if (newest := _newest(place, kind))
    ]
    return (max(found)[1], reason) if found else (None, reason)


def _newest(folder: Path, kind: str) -> tuple[int, str] | None:
    """(iterations, path) of the checkpoint of highest number that is whole."""
    names = (_NAME.fullmatch(path.name) for path in folder.glob(f'{kind}_*.pth'))
    for name in sorted(filter(None, names), key=lambda name: int(name[2]), reverse=True):
        path = folder / name[0]
        iterations = _iterations(path)
        if iterations is not None:
            return iterations, str(path)
    return None


def _iterations(path: Path) -> int | None:
    """How far the training of a checkpoint has come; None if it is not whole, or weights only."""
    try:
        checkpoint = checkpoint_file.load(str(path))
        return checkpoint['meta']['iter'] if 'optimizer' in checkpoint else None
    except (checkpoint_file.CheckpointError, KeyError, TypeError):
        return None
