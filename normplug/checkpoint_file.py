"""Reading a checkpoint file, with errors that name it and say what to do."""

from __future__ import annotations

import os.path as osp
import pickle
from collections.abc import Iterable
from typing import Any

from mmengine.runner import CheckpointLoader

from normplug.errors import UserError

__all__ = ['CheckpointError', 'check_exists', 'few', 'load', 'whitened_layers_in']

_WHITENED = 'seen_in.cov'  # the state of every whitened layer has it, and of no other


class CheckpointError(UserError, ValueError):
    """A checkpoint is not what it is taken for. The message names the file and what to do."""


def load(path: str, asked_by: str = '') -> Any:
    """Load the checkpoint at ``path`` (a file or whatever mmengine can load) to the CPU.

    Args:
        path: the file.
        asked_by: the option or config key that names it, for the message.

    Raises:
        CheckpointError: there is none; it cannot be read, or asks for code.
    """
    prefix = f'{asked_by}: ' if asked_by else ''
    try:
        return CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except FileNotFoundError as error:
        raise CheckpointError(f'{prefix}{_absent(path)}') from error
    except (RuntimeError, pickle.UnpicklingError) as error:
        # normplug.compat's loader names the file and says what is wrong with it.
        raise CheckpointError(f'{prefix}{error}') from error
    except OSError as error:
        raise CheckpointError(f'{prefix}checkpoint {path} cannot be loaded: {error}') from error


def check_exists(path: str, asked_by: str) -> None:
    """Raise a CheckpointError unless ``path`` is a file."""
    if not osp.isfile(osp.expanduser(path)):
        raise CheckpointError(f'{asked_by}: {_absent(path)}')


def _absent(path: str) -> str:
    if osp.isdir(osp.expanduser(path)):
        return f'checkpoint {path} is a folder; name the file in it'
    return (
        f'checkpoint {path} does not exist; train or download it first '
        '(configs/pretrain makes those at digits scale), or name another file there'
    )


def few(names: Iterable[str], limit: int = 4) -> str:
    """The first names, and dots if there are more."""
    names = list(names)
    return ', '.join(names[:limit]) + (', ...' if len(names) > limit else '')


def whitened_layers_in(state: Iterable[str]) -> list[str]:
    """Return the names of the whitened layers that a state dict is from."""
    marked = [key for key in state if f'.{key}'.endswith(f'.{_WHITENED}')]
    return [key.removesuffix(_WHITENED).rstrip('.') for key in marked]
