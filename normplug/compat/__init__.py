"""What lets the mm packages run on today's torch: operators and safe checkpoint loading."""

from normplug.compat import checkpoint, mmcv_ext

__all__ = ['install']


def install() -> None:
    """Provide `mmcv._ext` where it is missing and make checkpoints load with `weights_only=True`.

    Calling it again changes nothing.
    """
    mmcv_ext.install()
    checkpoint.install()
