"""Make the mm packages work with current torch, and with the norms and configs of this package."""

from normplug.compat import base_configs, checkpoint, mmcv_ext, update_bn
from normplug.compat.ops import deform_conv  # scripts of users look it up here

__all__ = ['deform_conv', 'install']


def install() -> None:
    """Install all parts; calling it again changes nothing.

    They are: `mmcv._ext` if it is missing, safe loading of checkpoints, `normplug::` bases of
    configs, and our norms in torch's ``update_bn``.
    """
    mmcv_ext.install()
    checkpoint.install()
    base_configs.install()
    update_bn.install()
