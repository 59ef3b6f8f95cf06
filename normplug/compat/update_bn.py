"""``torch.optim.swa_utils.update_bn`` for the norms of this package.

torch finds batch norms by ``isinstance`` and would silently leave out ours, and with them the
statistics of an averaged model. Our norms support everything that it does to a layer: it calls
``reset_running_stats``, sets ``momentum = None`` during its pass over the data, and lets the layer
count its batches. So it only has to find them.
"""

import builtins

from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import swa_utils

from normplug.norms import BaseNorm
from normplug.norms.linked import Linked

__all__ = ['install']


def install() -> None:
    """Make ``update_bn`` find our norms, also if it was imported before; may be called again.

    A global name of a module hides a builtin for the functions of that module only. torch's code is
    unchanged, and a model without our norms is not affected.
    """
    swa_utils.isinstance = _isinstance


def _isinstance(value: object, kinds: object) -> bool:
    """As ``isinstance``, but our norms with moving statistics count as batch norms."""
    if kinds is not _BatchNorm or not builtins.isinstance(value, BaseNorm):
        return builtins.isinstance(value, kinds)
    if builtins.isinstance(value, Linked) and value.moves_statistics and value.link is None:
        raise ValueError(
            f'update_bn: a {type(value).__name__} layer of this model was never linked to its '
            'predecessor, or is a copy, as an averaged model has it: call '
            'normplug.link_kalman(model, ...) before'
        )
    return value.moves_statistics
