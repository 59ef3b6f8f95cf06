"""What lets the mm packages run on today's torch, and both of them find what this package has."""

from normplug.compat import base_configs, checkpoint, mmcv_ext, update_bn
from normplug.compat.ops import deform_conv  # scripts of users look it up here

__all__ = ['deform_conv', 'install']


def install() -> None:
    """Let the mm packages and torch find what they lack; calling it again changes nothing.

    `mmcv._ext` where it is missing, safe loading of checkpoints, `normplug::` bases of configs, and
    our norms in torch's ``update_bn``.
    """
    mmcv_ext.install()
    checkpoint.install()
    base_configs.install()
    update_bn.install()
