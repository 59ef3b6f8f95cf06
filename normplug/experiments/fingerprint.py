"""Whether two runs were made by the same config."""

from __future__ import annotations

import hashlib
import json

from mmengine.config import Config

__all__ = ['fingerprint']


def fingerprint(cfg: Config) -> str:
    """A hash of all that a config says: runs of different ones are not put in one table."""
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
