"""Read datasets of types that are not known here by their own code, and decode their images."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import re
from typing import Any

from mmengine.dataset import BaseDataset

from normplug.quiet import quiet_logger

from .folders import Folders
from .problems import Problems

__all__ = ['find_images']

_WRITING = re.compile(r'\b(dump|makedirs|mkdir_or_exist|urlretrieve|download\w*)\(')


def find_images(kind: Any, key: str, config: dict, problems: Problems) -> list[str] | None:
    """Return the paths of a dataset's images; None if it cannot be asked, or writes files then.

    Args:
        kind: the dataset's class.
        key: its config key.
        config: its config, of local files.
        problems: told if the dataset cannot be read, and of missing images.
    """
    if not (inspect.isclass(kind) and issubclass(kind, BaseDataset)):
        return None
    parameters = inspect.signature(kind).parameters.values()
    if not any(p.name == 'pipeline' or p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    if _writes(kind):
        return None
    arguments = copy.deepcopy(dict(config)) | {'pipeline': []}
    for name in ('type', '_scope_'):
        arguments.pop(name, None)
    try:
        with quiet_logger(logging.ERROR):
            dataset = kind(**arguments)
            dataset.full_init()
            samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    except Exception as error:  # of any dataset's own code
        advice = 'Its own code stops so, in a training too: correct the data or the config'
        case = f'{type(error).__name__}: {error}'
        problems.error(key, f'data that {kind.__name__} cannot read', case, advice)
        return []
    paths = [sample.get('img_path') for sample in samples if isinstance(sample, dict)]
    if not paths or not all(isinstance(path, str) for path in paths):
        return None
    folders = Folders()
    for path in paths:
        if '://' not in path and not folders.has(path):
            problems.error(key, 'images that are missing', path, 'Put them there')
    return [path for path in paths if os.path.isfile(path)]


def _writes(kind: type) -> bool:
    """Whether its code writes files, as CrowdHuman's does with the sizes of its images."""
    for base in kind.__mro__:
        if issubclass(base, BaseDataset) and base is not BaseDataset:
            try:
                source = inspect.getsource(base)
            except (OSError, TypeError):
                return True  # nobody knows
            if _WRITING.search(source):
                return True
    return False
