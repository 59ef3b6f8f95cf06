"""``torch.optim.swa_utils.update_bn`` for the norms of this package.

It finds batch norms by ``isinstance``, and would leave out ours, and the statistics of an averaged
model with them, without a word. They answer to all that it does to a layer: it calls
``reset_running_stats``, sets ``momentum = None`` for the time of its pass over the data, and lets
the layer count its batches. So it is enough that they are found.
"""

import builtins

from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import swa_utils

from normplug.norms import KN, BaseNorm

__all__ = ['install']


def install() -> None:
    """Let ``update_bn`` find our norms, also where it was imported before; may be called again.

    A name of a module comes before a builtin, for the functions of that module alone. torch's code
    runs as it is, and a model without our norms is not affected.
    """
    swa_utils.isinstance = _isinstance


def _isinstance(value: object, kinds: object) -> bool:
    """``isinstance``, but that a norm of ours whose statistics move is a batch norm."""
    if kinds is not _BatchNorm or not builtins.isinstance(value, BaseNorm):
        return builtins.isinstance(value, kinds)
    if builtins.isinstance(value, KN) and value.moves_statistics and value.link is None:
        raise ValueError(
            'update_bn: a KN layer of this model was never linked to its predecessor, or is a '
            'copy, as an averaged model has it: call normplug.link_kalman(model, ...) before'
        )
    return value.moves_statistics
