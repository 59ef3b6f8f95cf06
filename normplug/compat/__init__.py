"""What lets the mm packages run on today's torch, and find the configs of this package."""

from normplug.compat import base_configs, checkpoint, mmcv_ext

__all__ = ['install']


def install() -> None:
    """Provide `mmcv._ext` where it is missing, safe loading of checkpoints, and `normplug::` bases.

    Calling it again changes nothing.
    """
    mmcv_ext.install()
    checkpoint.install()
    base_configs.install()
