"""Load mmengine's checkpoints with `weights_only=True`, torch's default since 2.6.

mmengine 0.10.7 keeps its log history in a checkpoint: objects that torch refuses unless they are
on its allow-list. `install` adds exactly those; everything else in a file is still refused.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from functools import partial

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch.hub import load_state_dict_from_url

__all__ = ['install', 'load_from_local']

_STATISTICS = ('mean', 'max', 'min', 'current')


def install() -> None:
    """Extend torch's allow-list, and make mmengine load files and downloads with it."""
    torch.serialization.add_safe_globals(_safe_globals())
    # Its loaders of http(s)://, torchvision:// and open-mmlab:// all call this one, whose default
    # would unpickle anything.
    mmengine.runner.checkpoint.load_url = partial(load_state_dict_from_url, weights_only=True)
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)


def load_from_local(filename: str, map_location=None):
    """Load a checkpoint file with `weights_only=True`; the loader of mmengine's '' scheme.

    Args:
        filename: Path of the checkpoint; `~` is expanded.
        map_location: As in `torch.load`.

    Raises:
        FileNotFoundError: There is no such file.
        pickle.UnpicklingError: The file asks for a class or function off the allow-list.
        RuntimeError: The file is truncated, not a checkpoint, or not loadable here.
    """
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(
            f'checkpoint {filename} is not a file. Correct the path in `load_from`, `resume`, '
            '`init_cfg` or on the command line.'
        )
    try:
        return torch.load(filename, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _REFUSED.search(str(error))
        if refused is None:
            raise RuntimeError(_unreadable(filename, error)) from error
        raise pickle.UnpicklingError(
            f'checkpoint {filename} is refused: it asks for {refused[0]}, which may run code, and '
            'was not executed. If you trust where the file comes from, save its tensors alone '
            'under a new name, or put that class on the list of '
            'torch.serialization.add_safe_globals.'
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise RuntimeError(_unreadable(filename, error)) from error


def _unreadable(filename: str, error: Exception) -> str:
    # Without torch's advice to try again with weights_only=False.
    cause = str(error).split('WeightsUnpickler error: ')[-1].split('\n\nCheck the documentation')[0]
    cause = f'{type(error).__name__}: {cause.strip()}'
    message = f'checkpoint {filename} cannot be loaded: '
    if zipfile.is_zipfile(filename):
        return message + cause
    with open(filename, 'rb') as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b'<!doctype html', b'<html')):
        return message + 'it is a web page, which a failed download leaves. Download it again.'
    message += (
        'it is not a complete checkpoint: truncated (writing or copying it was interrupted), or '
        'another kind of file. Copy it again or use an earlier one.'
    )
    # Of a file of torch's older format that is whole, torch says what is wrong.
    told = isinstance(error, RuntimeError) and not start.startswith(b'pk')
    return f'{message} ({cause})' if told else message


# What torch's restricted unpickler and `_getattr` say on a refusal.
_REFUSED = re.compile(
    r'(?<=GLOBAL )[\w.]+|(?<=call reduce for unrecognized function ).+|getattr\(.*\)'
)


def _safe_globals() -> list:
    # Taken from what numpy itself writes: the functions moved from numpy.core to numpy._core.
    reconstruct, scalar = np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed = [HistoryBuffer, np.ndarray, np.dtype, (_getattr, 'builtins.getattr')]
    for package in ('numpy.core', 'numpy._core'):
        allowed.append((reconstruct, f'{package}.multiarray._reconstruct'))
        allowed.append((scalar, f'{package}.multiarray.scalar'))
    # A dtype is unpickled as an instance of a class of its own: numpy.dtypes.Float64DType, ...
    allowed.extend({type(np.dtype(code)) for code in np.typecodes['All']})
    return allowed


def _getattr(*args):
    """Stand in for `getattr` in a pickle: HistoryBuffer pickles its statistics by it.

    Raises:
        pickle.UnpicklingError: Anything but one of HistoryBuffer's four statistics is asked for.
    """
    owner, name = args if len(args) == 2 else (None, None)
    if owner is HistoryBuffer and isinstance(name, str) and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'getattr({", ".join(map(repr, args))})')
