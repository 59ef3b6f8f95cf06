"""What the steps return, by names.

Fields are tensors or None; the last may be a tuple of them. Compiled code returns a list, of which
:func:`normplug.ops.traced.flattened` makes these again.
"""

from typing import NamedTuple

from torch import Tensor

__all__ = ['Backward', 'Forward', 'Input', 'Local', 'Merged', 'Output', 'PackedSums', 'Sums']


class Output(NamedTuple):
    """What the second half of a forward makes.

    Attributes:
        y_n: in x's shape; None where it was written to memory that was given.
        filtered_mean, filtered_var: the batch moments as a filter changed them; None without one.
        running: running statistics that wait to be stored: see
            :func:`normplug.ops.plan.tracked_step`.
    """

    y_n: Tensor | None
    filtered_mean: Tensor | None
    filtered_var: Tensor | None
    running: tuple[Tensor, ...]


class Forward(NamedTuple):
    """What a forward makes; fields as in :class:`Output`, and

    Attributes:
        mean_nc, var_nc: moments of the instances, (N, C).
        batch_mean, batch_var: those that the rule was given beside them; None without any.
    """

    y_n: Tensor | None
    filtered_mean: Tensor | None
    filtered_var: Tensor | None
    mean_nc: Tensor
    var_nc: Tensor
    batch_mean: Tensor | None
    batch_var: Tensor | None
    running: tuple[Tensor, ...]


class Sums(NamedTuple):
    """What backward knows once it has read x and dy.

    Attributes:
        dy_nc: Σ dy, (N, C), in the rule's precision.
        scale_nc: the scale, (N, C).
        to_mean_nc, to_var_nc: gradients of the instance moments through the rule, (N, C).
        to_batch_mean, to_batch_var: of the batch moments, in their shape; None without any.
        to_params: of the rule's parameters, and the filter's; None where none is needed.
    """

    dy_nc: Tensor
    scale_nc: Tensor
    to_mean_nc: Tensor
    to_var_nc: Tensor
    to_batch_mean: Tensor | None
    to_batch_var: Tensor | None
    to_params: tuple[Tensor | None, ...]


class Backward(NamedTuple):
    """The gradients.

    Attributes:
        dx_n: in x's shape; None where it was written to memory that was given, or is not needed.
        to_params: as in :class:`Sums`.
    """

    dx_n: Tensor | None
    to_params: tuple[Tensor | None, ...]


class Local(NamedTuple):
    """Moments of this rank's instances, (N, C) each; those of its batch, packed, (3, C')."""

    mean_nc: Tensor
    var_nc: Tensor
    packed: Tensor


class Merged(NamedTuple):
    """Batch moments of all ranks, (C',) each; their count, (); ``running`` as in Output."""

    batch_mean: Tensor
    batch_var: Tensor
    total: Tensor
    running: tuple[Tensor, ...]


class PackedSums(NamedTuple):
    """:class:`Sums` with the gradients of the batch moments as one, (2, C')."""

    dy_nc: Tensor
    scale_nc: Tensor
    to_mean_nc: Tensor
    to_var_nc: Tensor
    to_batch: Tensor
    to_params: tuple[Tensor | None, ...]


class Input(NamedTuple):
    """The gradient of x; None where it was written to memory that was given."""

    dx_n: Tensor | None
