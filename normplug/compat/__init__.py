"""Make the mm packages work with current torch, and with the norms and configs of this package."""

from normplug.compat import (
    base_configs,
    checkpoint,
    mmaction_decode,
    mmaction_gaps,
    mmaction_norms,
    mmcv_ext,
    update_bn,
)
from normplug.compat.ops import deform_conv  # scripts of users look it up here

__all__ = ['deform_conv', 'install']


def install() -> None:
    """Install all parts; calling it again changes nothing.

    They are: `mmcv._ext` if it is missing, the module that mmaction2's wheel lacks, safe loading of
    checkpoints, names of configs such as `normplug::…`, our norms in torch's ``update_bn`` and
    where mmaction2 knows batch norms alone, its decoding by PyAV in one thread.
    """
    mmcv_ext.install()
    mmaction_gaps.install()
    mmaction_norms.install()
    mmaction_decode.install()
    checkpoint.install()
    base_configs.install()
    update_bn.install()
