"""The steps of :mod:`normplug.ops.steps` and ``reduced`` for covariances of blocks of channels.

They have the names and arguments of the steps for variances, so that one autograd Function runs
both; on a CPU these run in plain torch under every backend. Where those have a scale and an
offset, (N, C), these have a :class:`normplug.covariance.Linear`:

* forward: the covariance of x is one batched product; the rule makes of it a linear map; applying
  that to x is another.
* backward: Σ dy xᵀ is a product; the rule is run again and differentiated; and
  dx = matrixᵀ · (scale · dy) + (2/samples) sym(∂cov) · x + level takes two.

Between them, x and small tensors are kept. As there, means and parameters are float64 on a
CPU, because differences of means are taken. Covariances are sums of products in float32
(float64 for float64), and so is what is made of them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import NamedTuple

import torch
from torch import Tensor

from normplug.covariance import Covariances, Linear, applied, inverse_root, merge, pool
from normplug.ops import whitening_passes as passes
from normplug.ops.passes import pixels_of
from normplug.ops.plan import Plan, gradients, tracked_step
from normplug.ops.results import Backward, Forward, Input, Local, Merged, Output
from normplug.running import Tracked
from normplug.stats import Moments

__all__ = [
    'BlockSums',
    'backward_step',
    'batch_moments',
    'forward_step',
    'instance_moments',
    'local_step',
    'merge_step',
    'output_step',
    'packed_input_step',
    'packed_sums_step',
]


class BlockSums(NamedTuple):
    """What backward knows once it has read x and dy: the twin of PackedSums.

    Attributes:
        matrix, scale, offset: what y is of x less its centre.
        to_mean, to_cov: gradients of the instance moments, (N, g, d) and (N, g, d, d).
        to_batch: of the batch moments, one tensor; None without any.
        to_params: of the rule's parameters; None where none is needed.
    """

    matrix: Tensor
    scale: Tensor
    offset: Tensor
    to_mean: Tensor
    to_cov: Tensor
    to_batch: Tensor | None
    to_params: tuple[Tensor | None, ...]


def _in_its_precision(step: Callable) -> Callable:
    """Products of matrices are what autocast would round to half precision."""

    @wraps(step)
    def called(x_n, *args):
        with _no_autocast(x_n):
            return step(x_n, *args)

    return called


def _no_autocast(x_n: Tensor) -> AbstractContextManager:
    kind = x_n.device.type
    if torch.compiler.is_compiling() or (
        torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    ):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


@_in_its_precision
def instance_moments(x_n: Tensor, plan: Plan) -> Covariances:
    """Mean (N, g, d), in the plan's dtype, and covariance (N, g, d, d) of every instance."""
    return passes.moments(x_n, plan.blocks, plan.dtype)


def batch_moments(
    x_n: Tensor, instance: Covariances, plan: Plan, running: Tracked | None
) -> Covariances:
    """Those of all instances, (g, d) and (g, d, d), in the plan's dtype; zero where N is 0."""
    if x_n.shape[0] == 0:  # a mean of nothing is NaN, which a reducer could not weigh
        return Covariances(*(t.to(plan.dtype).sum(0) for t in instance))
    return pool(Covariances(*instance))


def forward_step(
    x_n: Tensor,
    plan: Plan,
    params: Sequence[Tensor],
    running: Tracked | None,
    out_n: Tensor | None = None,
) -> Forward:
    """Compute y of x, and what backward needs."""
    instance = instance_moments(x_n, plan)
    batch = None
    if plan.batch_from is not None:
        batch = batch_moments(x_n, instance, plan, running)
    elif running is not None:
        # Copies: the buffers may move on between this forward and its backward.
        mean, cov = (t.to(plan.dtype, copy=True) for t in running[:2])
        batch = Covariances(mean.view(cov.shape[:-1]), cov)
    instance = _used(instance, plan)
    tracked = None if plan.batch_from is None else running
    count = x_n.shape[0] * pixels_of(x_n)
    *output, stored = output_step(x_n, plan, instance, batch, params, tracked, count, out_n)
    return Forward(*output, *instance, *(batch or (None, None)), stored)


def local_step(x_n: Tensor, plan: Plan, running: Tracked | None) -> Local:
    """Compute the moments of every instance, and those of the batch for a collective."""
    instance = instance_moments(x_n, plan)
    mean, cov = batch_moments(x_n, instance, plan, running)
    count = mean.new_full((1,), x_n.shape[0] * pixels_of(x_n))
    return Local(*_used(instance, plan), torch.cat((mean.flatten(), cov.flatten(), count)))


def merge_step(ranks: Tensor, plan: Plan, tracked: Tracked | None) -> Merged:
    """Merge what the ranks packed, (R, C + C·d + 1); move the running statistics, if given."""
    size = plan.blocks.size
    channels = (int(ranks.shape[1]) - 1) // (1 + size)
    means, covs, counts = ranks.split((channels, channels * size, 1), 1)
    blocks = Covariances(means.unflatten(1, (-1, size)), covs.unflatten(1, (-1, size, size)))
    batch, total = merge(blocks, counts.squeeze(1))
    return Merged(*batch, total, _tracked(tracked, plan, batch, total))


@_in_its_precision
def output_step(
    x_n: Tensor,
    plan: Plan,
    instance: Covariances,
    batch: Covariances | None,
    params: Sequence[Tensor],
    tracked: Tracked | None,
    count: int | Tensor,
    out_n: Tensor | None = None,
) -> Output:
    """Compute y of x, its moments and the parameters; move the running statistics."""
    centre = passes.centre_of(instance[0], x_n)
    batch = _given(plan, batch, centre)
    tensors = (*instance, *(batch or ()), *params)
    by = _map(plan, batch is not None, pixels_of(x_n), centre, tensors)
    y_n = passes.affine(x_n, plan.blocks, centre, by, out_n)
    return Output(y_n, None, None, _tracked(tracked, plan, batch, count))


@_in_its_precision
def packed_sums_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Covariances,
    batch: Covariances | None,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    to_filtered: None,
) -> BlockSums:
    """Read x and dy for sums of their products, and pull them back through the rule."""
    centre = passes.centre_of(instance[0], x_n)
    moments = *instance, *(batch or ())
    tensors = *moments, *params

    def mapped(*tensors: Tensor) -> Linear:
        if batch is not None:
            given = _given(plan, Covariances(*tensors[2:4]), centre)
            tensors = *tensors[:2], *given, *tensors[4:]
        return _map(plan, batch is not None, pixels_of(x_n), centre, tensors)

    # The map of x is needed for the sums that are then pulled back through it.
    by, grads = gradients(
        mapped,
        tensors,
        (*(True for _ in moments), *needed),
        lambda by: passes.backward_reduce(dy_n, x_n, plan.blocks, centre, Linear(*by)),
    )
    to_moments, to_params = grads[: len(moments)], grads[len(moments) :]
    to_batch = torch.cat([t.reshape(-1) for t in to_moments[2:]]) if batch is not None else None
    return BlockSums(*by, *to_moments[:2], to_batch, to_params)


@_in_its_precision
def packed_input_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Covariances,
    batch: Covariances | None,
    sums: BlockSums,
    total: Tensor | None,
    out_n: Tensor | None,
) -> Input:
    """Compute dx, once ``sums`` has the sum over the ranks."""
    pixels = pixels_of(x_n)
    samples = max(pixels * plan.blocks.width, 1)
    to_mean, to_cov = sums.to_mean, sums.to_cov
    if plan.batch_from is not None:
        share = pixels / (x_n.shape[0] * pixels if total is None else total.clamp(min=1))
        of_mean, of_cov = (t.numel() for t in batch)
        to_batch_mean, to_batch_cov = sums.to_batch.split((of_mean, of_cov))
        to_batch_cov = share * to_batch_cov.view(batch[1].shape)
        spread = instance[0] - batch[0]
        to_mean = to_mean + share * to_batch_mean.view(batch[0].shape)
        to_mean = to_mean + applied(to_batch_cov + to_batch_cov.mT, spread)
        to_cov = to_cov + to_batch_cov.to(to_cov.dtype)
    centre = passes.centre_of(instance[0], x_n)
    slope = (to_cov + to_cov.mT) / samples
    level = to_mean / samples + applied(slope, centre - instance[0])
    by = Linear(sums.matrix, sums.scale, sums.offset)
    dx_n = passes.backward_input(dy_n, x_n, plan.blocks, centre, by, slope, level, out_n)
    return Input(dx_n)


def backward_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Covariances,
    batch: Covariances | None,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    to_filtered: None,
    needs_dx: bool,
    out_n: Tensor | None = None,
) -> Backward:
    """Compute dx, if it is needed, and the gradients of the parameters that are."""
    sums = packed_sums_step(dy_n, x_n, plan, instance, batch, params, needed, to_filtered)
    dx_n = None
    if needs_dx:
        dx_n = packed_input_step(dy_n, x_n, plan, instance, batch, sums, None, out_n).dx_n
    return Backward(dx_n, sums.to_params)


def _used(instance: Covariances, plan: Plan) -> Covariances:
    """Without covariances of images, which would be kept, where the rule takes but the batch."""
    if plan.batch_from is None or plan.blocks.root is None:
        return instance
    cov = instance.cov
    return instance._replace(cov=cov.new_zeros(()).expand(cov.shape))


def _given(plan: Plan, batch: Covariances | None, centre: Tensor) -> Covariances | None:
    """What the rule takes of the batch: with a root, whitening matrices for its covariances."""
    if batch is None or plan.batch_from is None or plan.blocks.root is None:
        return batch
    mean, cov = batch
    return Covariances(mean, inverse_root(cov.to(centre.dtype), *plan.blocks.root))


def _map(
    plan: Plan, batch_given: bool, pixels: int, centre: Tensor, tensors: Sequence[Tensor]
) -> Linear:
    """What the rule makes of moments and parameters, as a map of x less its centre.

    Args:
        tensors: the instances' moments, what :func:`_given` makes of the batch's, parameters.
    """
    exact, dtype = plan.dtype, centre.dtype
    mean, cov, *rest = tensors
    batch = None
    if batch_given:
        batch, rest = Covariances(rest[0].to(exact), rest[1].to(dtype)), rest[2:]
    params = (t.to(exact) for t in rest)
    instance = Covariances(mean.to(exact), cov.to(dtype))
    matrix, scale, offset = plan.rule(instance, batch, *params, pixels=pixels)
    # It depends on the mean here too: y = scale · matrix · (x − mean) + offset.
    return Linear(matrix, scale, offset + scale * applied(matrix, centre - mean).unsqueeze(-1))


def _tracked(
    tracked: Tracked | None, plan: Plan, batch: Covariances, count: int | Tensor
) -> tuple[Tensor, ...]:
    if tracked is None:
        return ()
    matrix = batch[1].to(plan.dtype)
    return tracked_step(tracked, plan, Moments(batch[0].flatten(), matrix), count)
