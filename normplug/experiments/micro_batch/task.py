"""The images that the experiment's config describes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from normplug.data.build import DigitsError, DigitsSettings, build_digits
from normplug.data.scene import SceneSettings
from normplug.errors import UserError

__all__ = ['build_task']


def build_task(cfg: Config, log: Callable[[str], None]) -> None:
    """Write the images that ``cfg.task`` describes, unless they are there, and point to them.

    Each task has its own folder in ``cfg.data_root``, and ``cfg``'s data sets read it then.

    Args:
        cfg: its ``task`` has the arguments of DigitsSettings, ``task.scene`` of SceneSettings.
        log: is told what was written.

    Raises:
        UserError: the task does not fit, or its images cannot be written.
    """
    try:
        task = _tuples(cfg.task.to_dict())
        settings = DigitsSettings(**{**task, 'scene': SceneSettings(**task.get('scene', {}))})
        digest = hashlib.sha256(json.dumps(asdict(settings)).encode()).hexdigest()[:12]
        folder = Path(cfg.data_root) / digest
        build_digits(folder, ['classification'], settings, log=log)
    except (DigitsError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f'task, in the config or by --cfg-options: {error}') from error
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(folder / 'classification')


def _tuples(value: Any) -> Any:
    """Lists, which --cfg-options may give, as tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
