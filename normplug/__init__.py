"""Normalizers of one research line for the OpenMMLab stack.

A config needs only ``custom_imports = dict(imports=['normplug'])``: importing the package registers
the norm types, the hooks and the optimizer constructor, and makes mmcv and torch work together
where they need help.
"""

# _requirements comes first and names missing packages; the others register their types.
from normplug import (  # noqa: F401
    _requirements,
    checkpoints,
    compat,
    deploy,
    hooks,
    models,
    norms,
    optim,
    whitened,
)
from normplug.kalman import link_kalman
from normplug.norms import *  # noqa: F403  # all norm types: normplug/norms has the one list
from normplug.ops import get_backend, set_backend
from normplug.register import NORMS, register

__all__ = ['NORMS', 'get_backend', 'link_kalman', 'set_backend', *norms.__all__]

__version__ = '0.1.0'

compat.install()
whitened.install()
register()
