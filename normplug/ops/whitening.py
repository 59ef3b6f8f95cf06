"""The steps of :mod:`normplug.ops.steps` and ``reduced`` for covariances of blocks of channels.

They have the names, arguments and results of the steps for variances, so that one autograd Function
runs both; these run in plain torch under every backend. Where those have a scale (N, C), these have
a matrix (N, g, d, d):

* forward: x is centred and split into blocks (N, g, d, S); their covariance is one batched product;
  the rule makes of it a matrix and an offset; y = matrix · (x − mean) + offset is another.
* backward: Σ dy (x − mean)ᵀ is a product; the rule is run again and differentiated; and
  dx = matrixᵀ dy + (2/S) sym(∂cov) (x − mean) + level takes two.

Between them, x and small tensors are kept. As there, small tensors are float64 where the device
has it, Newton's iterations of a rule included; covariances themselves are sums of products in
float32 (float64 for float64) of x centred at its mean rounded to that.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps

import torch
from torch import Tensor

from normplug.covariance import Covariances, inverse_root, merge, outer, pool
from normplug.ops.passes import cast
from normplug.ops.plan import Blocks, Plan, gradients, tracked_step
from normplug.ops.reduced import Input, Local, Merged, PackedSums
from normplug.ops.steps import Backward, Forward, Output, pixels_of
from normplug.precision import working_dtype
from normplug.running import Tracked
from normplug.stats import Moments

__all__ = [
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
    return _centred_moments(x_n, plan)[0]


def batch_moments(
    x_n: Tensor, instance: Covariances, plan: Plan, running: Tracked | None
) -> Covariances:
    """Those of all instances, (g, d) and (g, d, d), in the plan's dtype; zero where N is 0."""
    mean, cov = instance[0], instance[1].to(plan.dtype)
    if mean.shape[0] == 0:  # a mean of nothing is NaN, which a reducer could not weigh
        return Covariances(mean.sum(0), cov.sum(0))
    return Covariances(*(t.squeeze(0) for t in pool(Covariances(mean, cov), 0)))


@_in_its_precision
def forward_step(
    x_n: Tensor,
    plan: Plan,
    params: Sequence[Tensor],
    running: Tracked | None,
    out_n: Tensor | None = None,
) -> Forward:
    """Compute y of x, and what backward needs."""
    instance, centred = _centred_moments(x_n, plan)
    batch = None
    if plan.batch_from is not None:
        batch = batch_moments(x_n, instance, plan, running)
    elif running is not None:
        # Copies: the buffers may move on between this forward and its backward.
        mean, cov = (t.to(plan.dtype, copy=True) for t in running[:2])
        batch = Covariances(mean.view(cov.shape[:-1]), cov)
    tracked = None if plan.batch_from is None else running
    count = x_n.shape[0] * pixels_of(x_n)
    y_n, stored = _output(x_n, plan, instance, batch, params, tracked, count, out_n, centred)
    return Forward(y_n, None, None, *instance, *(batch or (None, None)), stored)


@_in_its_precision
def local_step(x_n: Tensor, plan: Plan, running: Tracked | None) -> Local:
    """Compute the moments of every instance, and those of the batch for a collective."""
    instance = instance_moments(x_n, plan)
    mean, cov = batch_moments(x_n, instance, plan, running)
    count = mean.new_full((1,), x_n.shape[0] * pixels_of(x_n))
    return Local(*instance, torch.cat((mean.flatten(), cov.flatten(), count)))


def merge_step(ranks: Tensor, plan: Plan, tracked: Tracked | None) -> Merged:
    """Merge what the ranks packed, (R, C + C·d + 1); move the running statistics."""
    size = plan.blocks.size
    channels = (ranks.shape[1] - 1) // (1 + size)
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
    centred = _centred(x_n, plan, instance[0])
    y_n, stored = _output(x_n, plan, instance, batch, params, tracked, count, out_n, centred)
    return Output(y_n, None, None, stored)


@_in_its_precision
def packed_sums_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Covariances,
    batch: Covariances,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    to_filtered: None,
) -> PackedSums:
    """Read x and dy for two sums per block, and pull them back through the rule."""
    dy_b, centred = _gradient_of(dy_n, plan), _centred(x_n, plan, instance[0])
    return _sums(dy_b, centred, plan, instance, batch, params, needed, pixels_of(x_n))


@_in_its_precision
def packed_input_step(
    dy_n: Tensor,
    x_n: Tensor,
    plan: Plan,
    instance: Covariances,
    batch: Covariances,
    sums: PackedSums,
    total: Tensor,
    out_n: Tensor | None,
) -> Input:
    """Compute dx, once ``sums`` has the sum over the ranks."""
    dy_b, centred = _gradient_of(dy_n, plan), _centred(x_n, plan, instance[0])
    return Input(_input(dy_b, centred, x_n, plan, instance, batch, sums, total, out_n))


@_in_its_precision
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
    dy_b, centred = _gradient_of(dy_n, plan), _centred(x_n, plan, instance[0])
    sums = _sums(dy_b, centred, plan, instance, batch, params, needed, pixels_of(x_n))
    dx_n = None
    if needs_dx:
        dx_n = _input(dy_b, centred, x_n, plan, instance, batch, sums, None, out_n)
    return Backward(dx_n, sums.to_params)


# Centred x: (N, g, d, S) in the working dtype, and what was subtracted, less the mean, (N, g, d).
_Centred = tuple[Tensor, Tensor]


def _centred(x_n: Tensor, plan: Plan, mean: Tensor) -> _Centred:
    x_b = _blocks_of(x_n, plan.blocks)
    centre = mean.to(x_b.dtype)
    return (x_b - centre.unsqueeze(-1)).contiguous(), centre.to(mean.dtype) - mean


def _gradient_of(dy_n: Tensor, plan: Plan) -> Tensor:
    return _blocks_of(dy_n, plan.blocks).contiguous()  # else each product copies it


def _centred_moments(x_n: Tensor, plan: Plan) -> tuple[Covariances, _Centred]:
    x_b = _blocks_of(x_n, plan.blocks)
    if x_n.numel() == 0:  # a sum: autograd's graph is that of all ranks
        mean = x_b.sum(-1).to(plan.dtype)
        return Covariances(mean, outer(mean).to(x_b.dtype)), (x_b, mean)
    centre = x_b.mean(-1)
    x_b = (x_b - centre.unsqueeze(-1)).contiguous()
    rest = x_b.mean(-1)  # what the rounded mean left
    cov = x_b @ x_b.mT / pixels_of(x_n) - outer(rest)
    rest = rest.to(plan.dtype)
    return Covariances(centre.to(plan.dtype) + rest, cov), (x_b, -rest)


def _linear(
    plan: Plan, batch_given: bool, pixels: int, tensors: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Call the rule on a flat list: the instances' moments, the batch's if given, parameters."""
    mean, cov, *rest = (t.to(plan.dtype) for t in tensors)
    batch = None
    if batch_given:
        batch, rest = Covariances(*rest[:2]), rest[2:]
    return plan.rule(Covariances(mean, cov), batch, *rest, pixels=pixels)


def _tracked(
    tracked: Tracked | None, plan: Plan, batch: Covariances, count: int | Tensor
) -> tuple[Tensor, ...]:
    if tracked is None:
        return ()
    root = plan.blocks.root
    matrix = batch[1] if root is None else inverse_root(batch[1], *root)
    return tracked_step(tracked, plan, Moments(batch[0].flatten(), matrix), count)


def _output(
    x_n: Tensor,
    plan: Plan,
    instance: Covariances,
    batch: Covariances | None,
    params: Sequence[Tensor],
    tracked: Tracked | None,
    count: int | Tensor,
    out_n: Tensor | None,
    centred: _Centred,
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    tensors = (*instance, *(batch or ()), *params)
    matrix, offset = _linear(plan, batch is not None, pixels_of(x_n), tensors)
    x_b, shift = centred
    offset = offset + _applied(matrix, shift)
    y_b, level = matrix.to(x_b.dtype) @ x_b, offset.to(x_b.dtype)
    y_n = _written(y_b, level, x_n, plan.blocks, out_n)
    return y_n, _tracked(tracked, plan, batch, count)


def _sums(
    dy_b: Tensor,
    centred: _Centred,
    plan: Plan,
    instance: Covariances,
    batch: Covariances | None,
    params: Sequence[Tensor],
    needed: Sequence[bool],
    pixels: int,
) -> PackedSums:
    x_b, shift = centred
    dy_sum = dy_b.sum(-1).to(plan.dtype)
    to_matrix = (dy_b @ x_b.mT).to(plan.dtype) + dy_sum.unsqueeze(-1) * shift.unsqueeze(-2)
    moments = *instance, *(batch or ())
    (matrix, _), grads = gradients(
        lambda *tensors: tuple(_linear(plan, batch is not None, pixels, tensors)),
        (*moments, *params),
        (*(True for _ in moments), *needed),
        (to_matrix, dy_sum),
    )
    to_moments, to_params = grads[: len(moments)], grads[len(moments) :]
    to_batch = torch.cat([t.reshape(-1) for t in to_moments[2:]]) if batch is not None else None
    return PackedSums(dy_sum, matrix, *to_moments[:2], to_batch, to_params)


def _input(
    dy_b: Tensor,
    centred: _Centred,
    x_n: Tensor,
    plan: Plan,
    instance: Covariances,
    batch: Covariances | None,
    sums: PackedSums,
    total: Tensor | None,
    out_n: Tensor | None,
) -> Tensor | None:
    x_b, shift = centred
    pixels = pixels_of(x_n)
    dy_sum, matrix, to_mean, to_cov = sums[:4]
    # y = matrix · (x − mean) + offset depends on the mean directly too.
    to_mean = to_mean - _applied(matrix.mT, dy_sum)
    to_cov = to_cov.to(plan.dtype)
    if plan.batch_from is not None:
        share = pixels / (x_n.shape[0] * pixels if total is None else total.clamp(min=1))
        of_mean, of_cov = (t.numel() for t in batch)
        to_batch_mean, to_batch_cov = sums.to_batch.split((of_mean, of_cov))
        to_batch_cov = share * to_batch_cov.view(batch[1].shape)
        spread = instance[0] - batch[0]
        to_mean = to_mean + share * to_batch_mean.view(batch[0].shape)
        to_mean = to_mean + _applied(to_batch_cov + to_batch_cov.mT, spread)
        to_cov = to_cov + to_batch_cov
    slope = (to_cov + to_cov.mT) / max(pixels, 1)
    level = to_mean / max(pixels, 1) + _applied(slope, shift)
    matrix, slope, level = (t.to(x_b.dtype) for t in (matrix.mT, slope, level))
    return _written(matrix @ dy_b + slope @ x_b, level, x_n, plan.blocks, out_n)


def _applied(matrix: Tensor, vector: Tensor) -> Tensor:
    """(..., d, d) times (..., d)."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _blocks_of(t_n: Tensor, blocks: Blocks) -> Tensor:
    """(N, C, *spatial) as (N, g, d, S), in the dtype that products are computed in."""
    t_n = t_n.to(working_dtype(t_n))
    size, number = blocks.size, t_n.shape[1] // blocks.size
    if blocks.strided:
        return t_n.reshape(t_n.shape[0], size, number, pixels_of(t_n)).transpose(1, 2)
    return t_n.reshape(t_n.shape[0], number, size, pixels_of(t_n))


def _written(
    t_b: Tensor, level: Tensor, x_n: Tensor, blocks: Blocks, out_n: Tensor | None
) -> Tensor | None:
    """(N, g, d, S) plus (N, g, d) as (N, C, *spatial) in x's dtype, or written to ``out_n``."""
    if blocks.strided:
        t_b, level = t_b.transpose(1, 2), level.transpose(1, 2)
    ones = (1,) * (x_n.dim() - 2)
    if type(out_n) is Tensor:  # not traced: by views, so that one pass casts, in any layout
        out_b = out_n.unflatten(1, t_b.shape[1:3])
        t_b, level = t_b.unflatten(-1, x_n.shape[2:]), level.reshape(*level.shape, *ones)
        torch.add(t_b, level, out=out_b)
        return None
    # Traced, or batched: y may be no view, see fused._shaped.
    sum_n = t_b.reshape(x_n.shape) + level.reshape(*x_n.shape[:2], *ones)
    if out_n is None:
        return cast(sum_n, x_n.dtype)
    out_n.copy_(sum_n)
    return None
