"""mmengine's logger, kept quiet for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger

__all__ = ['quiet_logger']


@contextmanager
def quiet_logger(least: int = logging.WARNING) -> Iterator[None]:
    """Keep what is below the level ``least`` out of mmengine's current log, inside the block."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(max(level, least))
    try:
        yield
    finally:
        logger.setLevel(level)
