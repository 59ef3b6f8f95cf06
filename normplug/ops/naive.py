"""The plain formula: what the fast path is compared with, and what an exporter records.

It shares nothing with the steps but the rule: ``torch.var_mean`` of the pixels themselves, for an
instance as for a batch, and a derivative that is autograd's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from normplug.covariance import Covariances, inverse_root
from normplug.ops.plan import Plan
from normplug.running import Tracked
from normplug.stats import Moments

__all__ = ['normalize_naive']


def normalize_naive(
    x: Tensor, plan: Plan, params: Sequence[Tensor], running: Tracked | None = None
) -> Tensor:
    """Compute what :func:`normplug.ops.normalize` does on one rank; move no running statistics.

    Args:
        x: (N, C) or (N, C, *spatial), floating point; empty only where the plan takes no batch
            moments.
        plan: everything is computed in its ``dtype``. A filter is given the batch's moments once
            for each instance.
        params: the tensors that the rule takes after the moments, then those of the filter.
        running: what is normalized by where the plan takes no batch moments.

    Returns:
        y in x's shape and dtype.
    """
    if x.dim() == 2:
        return normalize_naive(x.unsqueeze(-1), plan, params, running).squeeze(-1)
    if plan.blocks is not None:
        return _whiten_naive(x, plan, params, running)
    x_n = x.to(plan.dtype)
    spatial = tuple(range(2, x.dim()))
    if x.numel() > 0:
        var_nc, mean_nc = torch.var_mean(x_n, spatial, correction=0)
    else:  # an empty batch, of which torch.var_mean warns
        var_nc = mean_nc = x_n.sum(spatial)
    if plan.correction:
        pixels = x[0, 0].numel()
        var_nc = var_nc * (pixels / max(pixels - plan.correction, 1))
    batch = None
    if plan.batch_from is not None:
        batch = _of_batch(x_n[:, plan.batch_from :], var_nc[:, plan.batch_from :], plan)
    elif running is not None:
        batch = Moments(running.mean.to(plan.dtype), running.var.to(plan.dtype))
    params = [p.to(plan.dtype) for p in params]
    if plan.filter is not None:
        own = len(params) - plan.filter_inputs
        batch, params = plan.filter(batch, *params[own:]), params[:own]
    scale_nc, offset_nc = plan.rule(Moments(mean_nc, var_nc), batch, *params)
    mean, scale, offset = (
        t.reshape(t.shape + (1,) * len(spatial)) for t in (mean_nc, scale_nc, offset_nc)
    )
    return ((x_n - mean) * scale + offset).to(x.dtype)


def _of_batch(x_n: Tensor, var_nc: Tensor, plan: Plan) -> Moments:
    """The moments of the batch, or of each instance's group, (N, C) each."""
    size = plan.group or len(x_n)
    found = []
    for x_g, var_gc in zip(x_n.split(size), var_nc.split(size), strict=True):
        var, mean = torch.var_mean(x_g.transpose(0, 1).flatten(1), 1, correction=0)
        if plan.correction:  # the released code makes the batch's variance of corrected ones
            var = var_gc.mean(0) + x_g.flatten(2).mean(2).var(0, correction=0)
        found += [(mean, var)] * len(x_g)
    return Moments(*(torch.stack(t) for t in zip(*found, strict=True)))


def _whiten_naive(
    x: Tensor, plan: Plan, params: Sequence[Tensor], running: Tracked | None
) -> Tensor:
    """The rule on covariances, each of the pixels themselves."""
    images = x.shape[0]
    pixels = x[0, 0].numel() if images else 1
    size, width = plan.blocks.size, plan.blocks.width
    number = x.shape[1] // (size * width)
    x_b = x.to(plan.dtype).reshape(images, number, size, width * pixels)
    mean = x_b.mean(3)
    centred = x_b - mean.unsqueeze(3)
    samples = centred.shape[3]
    instance = Covariances(mean, torch.einsum('ngip,ngjp->ngij', centred, centred) / samples)
    batch = None
    if plan.batch_from is not None:
        of_batch = x_b.mean((0, 3))
        about = x_b - of_batch.unsqueeze(2)
        cov = torch.einsum('ngip,ngjp->gij', about, about) / (images * samples)
        root = plan.blocks.root
        batch = Covariances(of_batch, cov if root is None else inverse_root(cov, *root))
    elif running is not None:
        of_running, matrix = (t.to(plan.dtype) for t in running[:2])
        batch = Covariances(of_running.view(matrix.shape[:2]), matrix)
    params = [p.to(plan.dtype) for p in params]
    matrix, scale, offset = plan.rule(instance, batch, *params, pixels=pixels)
    mixed_b = torch.einsum('ngij,ngjp->ngip', matrix.expand(images, -1, -1, -1), centred)
    # By way of one axis: where torch.export (2.11) joins some of several, it makes a guard of their
    # strides, which it then refuses if one of the sizes has a name.
    mixed = mixed_b.flatten().view(images, x.shape[1], pixels)
    y = mixed * scale.reshape(-1, 1) + offset.reshape(images, x.shape[1], 1)
    return y.reshape(x.shape).to(x.dtype)
