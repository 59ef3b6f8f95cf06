"""Write the weights of a whitened layer in new coordinates."""

from typing import NamedTuple

import torch
from mmengine.dist import broadcast
from torch import Tensor

from normplug.errors import TrainingError
from normplug.precision import small_dtype
from normplug.whitened.base import WhitenedLayer, between
from normplug.whitened.roots import Root, root_of
from normplug.whitened.samples import Samples

__all__ = ['Coordinates', 'Rewritten', 'WhiteningError', 'coordinates_of', 'rewrite']


class WhiteningError(TrainingError):
    """A layer cannot be written in new coordinates. All layers are as they were."""


class Coordinates(NamedTuple):
    """What a layer is written in next: c, and the roots of both sides, None where there is none."""

    mean: Tensor
    right: Root | None
    left: Root | None


class Rewritten(NamedTuple):
    """What a rewriting did.

    Attributes:
        rank_in, rank_out: d' of each side; None where it is not whitened.
        moved: the share of the outputs' variance that truncation took away, the pixels of a kernel
            taken as independent; 0 without truncation.
    """

    rank_in: int | None
    rank_out: int | None
    moved: float


@torch.no_grad()
def coordinates_of(layer: WhitenedLayer, name: str) -> Coordinates | None:
    """Find the coordinates in which what ``layer`` has seen is white, on rank 0, for all ranks.

    None for a layer that has seen nothing, such as that of a head that is not used: it keeps its
    coordinates.

    Args:
        layer: its ``seen_in`` and ``seen_out`` are gathered.
        name: of the layer, for messages.

    Raises:
        WhiteningError: there are fewer samples than channels, or some is NaN or infinite.
    """
    right = left = None
    if any(seen is not None and seen.count == 0 for seen in (layer.seen_in, layer.seen_out)):
        return None
    mean = layer.seen_in.mean.to(small_dtype(layer.seen_in.mean, exact=True))
    _check(layer.seen_in, 'inputs', name)
    if layer.of_inputs:
        right = _root(layer.seen_in, layer.eps, layer.in_rank, layer.symmetric)
    if layer.of_outputs:
        _check(layer.seen_out, layer.of_outputs.replace('values', 'outputs'), name)
        left = _root(layer.seen_out, layer.eps, layer.out_rank, True)
    return Coordinates(mean, right, left)


@torch.no_grad()
def rewrite(layer: WhitenedLayer, new: Coordinates, moments: list[dict] | None = None) -> Rewritten:
    """Write ``layer`` in ``new`` coordinates, in float64; its function stays, up to truncation.

    With W = A V B, b = d − W c before: V' = A'⁺ W B'⁺ and d' = b + W c'. Momentum, read as a step,
    is a direction of (V, d) and is carried over by the same map.

    Args:
        layer: what it has seen so far is not changed.
        new: from :func:`coordinates_of`.
        moments: of an optimizer, changed in place: dicts with the tensors of the weight and the
            bias, ``weight`` and ``bias``, either of which may lack.
    """
    dtype = new.mean.dtype
    weight, bias = layer.canonical(dtype)
    carried = [_carried(layer, new, own) for own in moments or []]
    for own, values in zip(moments or [], carried, strict=True):
        for key, value in values.items():
            own[key].copy_(value)
    written = _written(weight, new)
    given = layer.offset if layer.bias is None else layer.bias
    given.copy_(bias + _times(weight, new.mean))
    layer.weight.copy_(written)
    layer.in_mean.copy_(new.mean)
    for buffer, root in ((layer.in_matrix, new.right), (layer.out_matrix, new.left)):
        if root is not None:
            buffer.copy_(root.matrix)
    ranks = (None if root is None else root.kept for root in (new.right, new.left))
    return Rewritten(*ranks, _moved(layer, weight, new))


def _written(weight: Tensor, new: Coordinates) -> Tensor:
    right, left = (None if root is None else root.inverse for root in (new.right, new.left))
    return between(weight, right, left)


def _carried(layer: WhitenedLayer, new: Coordinates, own: dict) -> dict[str, Tensor]:
    """Steps (dV, dd), in the coordinates so far, in the new ones."""
    dtype, values = new.mean.dtype, {}
    step = own.get('bias')
    if 'weight' in own:
        weight = between(own['weight'].to(dtype), layer.in_matrix, layer.out_matrix)
        values['weight'] = _written(weight, new)
        if step is not None:
            step = step.to(dtype) + _times(weight, new.mean - layer.in_mean.to(dtype))
    if step is not None:
        values['bias'] = step
    return values


def _times(weight: Tensor, vector: Tensor) -> Tensor:
    """W c, for a constant image: (O, C, ...) times (C,)."""
    return (weight.flatten(2).sum(2) if weight.dim() > 2 else weight) @ vector


def _moved(layer: WhitenedLayer, before: Tensor, new: Coordinates) -> float:
    roots = [root for root in (new.right, new.left) if root is not None]
    if all(root.kept == len(root.matrix) for root in roots):
        return 0.0
    cov = layer.seen_in.cov.to(before.dtype)
    change = layer.canonical(before.dtype)[0] - before
    lost, whole = (torch.einsum('oc...,cd,od...->', w, cov, w) for w in (change, before))
    return float(lost / whole) if whole > 0 else 0.0


def _check(seen: Samples, kind: str, name: str) -> None:
    if int(seen.count) < len(seen.mean):
        raise WhiteningError(
            f'{name}: a covariance of {len(seen.mean)} channels of {kind} needs at least as many '
            f'samples, and there are {int(seen.count)}: raise batches of WhiteningHook, or give '
            'the layer a plain conv_cfg'
        )
    if not torch.isfinite(seen.mean.sum() + seen.cov.sum()):
        raise WhiteningError(
            f'{name}: its {kind} have NaN or infinite values: the training diverged; lower the '
            'learning rate, or raise eps of the conv_cfg'
        )


def _root(seen: Samples, eps: float, rank: float | None, symmetric: bool) -> Root:
    cov = seen.cov.to(small_dtype(seen.cov, exact=True))
    root = root_of((cov + cov.T) / 2, eps, rank, symmetric)
    # Eigenvectors of equal matrices may differ from machine to machine.
    kept = torch.tensor(root.kept)
    for tensor in (root.matrix, root.inverse, kept):
        broadcast(tensor)
    return Root(root.matrix, root.inverse, int(kept))
