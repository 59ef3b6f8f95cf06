"""SparsestMax: a map onto the simplex that grows sparser with a radius, and sparsemax under it.

Shao et al., "SSN: Learning Sparse Switchable Normalization via SparsestMax", CVPR 2019;
Martins and Astudillo, "From Softmax to Sparsemax", ICML 2016, algorithm 1.

Nothing here branches on the values of a tensor, so that nothing waits for the device and a
network compiles, or is captured in a CUDA graph, with these functions inside.
"""

import torch
from torch import Tensor

__all__ = ['sparsestmax', 'sparsestmax_of_parts']


def sparsestmax(logits: Tensor, radius: Tensor) -> Tensor:
    """Project onto the simplex outside a ball around its centre; one-hot once the radius is large.

    Sparsemax, then: a result nearer to the centre of its face of the simplex than the radius is
    pushed away from that centre as far as the radius; where it leaves the face so, it is
    projected back, and the same begins on the smaller face, whose centre is so much farther from
    the centre of the simplex. Of three nearly tied logits all are active up to radius sqrt(1/6),
    and one is from sqrt(2/3) on.

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

    What a GPU computes of tensors of one shape is one kernel; (..., K) and (..., 1) would be two.
    """
    # Nearer than this, a point is at the boundary of a face, or at its centre: there, no direction
    # in which to leave it is left but rounding. (The released code divides by that distance, and
    # its result leaves the simplex.) No global: TorchScript takes none.
    tied = 1e-6
    radius = radius.to(logits[0].dtype)
    point = _sparsemax(logits)
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
        # Where it is not near, neither the value nor the gradient of what follows is used; but a
        # gradient of infinity would still spoil the sum.
        length = torch.where(near, squared, 1.0).sqrt()
        pushed = _sparsemax([c + o * (radius / length) for c, o in zip(centre, offset)])
        point = [torch.where(near, new, old) for new, old in zip(pushed, point)]
        previous = centre
    return point


def _sparsemax(logits: list[Tensor]) -> list[Tensor]:
    """Euclidean projection onto the simplex."""
    # All pairs instead of a sort: K is 3, and a sort would be an operator of its own, where
    # everything else fuses. Tied logits count each other, and are all in the support or none.
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
