"""Normalizers of one research line for the OpenMMLab stack.

``custom_imports = dict(imports=['normplug'])`` in a config is all that it takes: importing the
package registers the norm types, the hooks and the optimizer constructor, and prepares mmcv and
torch for each other where they need it.
"""

# The first says what is missing, before anything fails on it; the others register themselves.
from normplug import _requirements, checkpoints, compat, deploy, hooks, models, norms, optim  # noqa: F401
from normplug.kalman import link_kalman
from normplug.norms import *  # noqa: F403  # all norm types: normplug/norms has the one list
from normplug.ops import get_backend, set_backend
from normplug.register import NORMS, register

__all__ = ['NORMS', 'get_backend', 'link_kalman', 'set_backend', *norms.__all__]

__version__ = '0.1.0'

compat.install()
register()
