"""SparsestMax: a map onto the simplex that grows sparser with a radius, and sparsemax under it.

Shao et al., "SSN: Learning Sparse Switchable Normalization via SparsestMax", CVPR 2019;
Martins and Astudillo, "From Softmax to Sparsemax", ICML 2016, algorithm 1.

Nothing here branches on the values of a tensor. So the host never waits for the device, and a
network that uses these functions can be compiled or captured in a CUDA graph.
"""

import torch
from torch import Tensor

__all__ = ['sparsestmax', 'sparsestmax_of_parts']


def sparsestmax(logits: Tensor, radius: Tensor) -> Tensor:
    """Project onto the simplex outside a ball around its centre; one-hot once the radius is large.

    The function first applies sparsemax. If the result is nearer to the centre of its face of the
    simplex than the radius, it is pushed away from the centre to that distance. If it then leaves
    the face, it is projected back, and the same is done on the smaller face, with radius² reduced
    by the squared distance between the two centres. For three nearly tied logits, all are active
    up to radius sqrt(1/6), and only one from sqrt(2/3) on.

    Logits that are tied (nearer than 1e-6 to the centre of a face) stay tied at any radius.

    Args:
        logits: of shape (..., K), floating point.
        radius: of shape () or (..., 1), in [0, 1]; at 0 the result is sparsemax.

    Returns:
        Of the logits' shape; not negative, sums to 1 over the last axis. Differentiable in the
        logits.
    """
    if radius.dim() > 0:
        radius = radius.squeeze(-1)
    return torch.stack(sparsestmax_of_parts(logits.unbind(-1), radius), -1)


def sparsestmax_of_parts(logits: list[Tensor], radius: Tensor) -> list[Tensor]:
    """:func:`sparsestmax` of K tensors of one shape; the radius is of that shape too, or ().

    On a GPU, operations on tensors of one shape fuse into one kernel; (..., K) and (..., 1) would
    take two.
    """
    # A point nearer than this is at the boundary or the centre of a face, where its direction from
    # the centre is only rounding. (The released code divides by that distance, and its result
    # leaves the simplex.) Not a global: TorchScript does not accept those.
    tied = 1e-6
    radius = radius.to(logits[0].dtype)
    # Less the largest, which changes nothing: of large logits, float32 would lose what makes the
    # sum 1, and the rest would pass for a distance from the centre.
    largest = logits[0].detach()
    for logit in logits[1:]:
        largest = torch.maximum(largest, logit.detach())
    point = _sparsemax([logit - largest for logit in logits])
    previous = point
    for step in range(len(logits) - 1):
        face = [(p > tied).to(p.dtype) for p in point]
        size = _total(face)
        centre = [f / size for f in face]
        if step > 0:
            between = _total([(c - p).square() for c, p in zip(centre, previous)])
            radius = (radius.square() - between).clamp(min=0).sqrt()
        offset = [p - c for p, c in zip(point, centre)]
        squared = _total([o.square() for o in offset])
        near = (squared < radius.square()) & (squared > tied**2)
        # If it is not near, neither value nor gradient of the following is used; but an infinite
        # gradient would still make the sum NaN.
        length = torch.where(near, squared, 1.0).sqrt()
        pushed = _sparsemax([c + o * (radius / length) for c, o in zip(centre, offset)])
        point = [torch.where(near, new, old) for new, old in zip(pushed, point)]
        previous = centre
    return point


def _sparsemax(logits: list[Tensor]) -> list[Tensor]:
    """Euclidean projection onto the simplex."""
    # Compare all pairs instead of sorting: K is 3, and a sort would be a separate operator, while
    # the rest fuses. Tied logits count each other, so all or none of them are in the support.
    support: list[Tensor] = []
    for one in logits:
        not_smaller = [(other >= one).to(one.dtype) for other in logits]
        rank = _total(not_smaller)
        total = _total([n * other for n, other in zip(not_smaller, logits)])
        support.append((1 + rank * one > total).to(one.dtype))
    threshold = (_total([s * z for s, z in zip(support, logits)]) - 1) / _total(support)
    return [(z - threshold).clamp(min=0) for z in logits]


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
