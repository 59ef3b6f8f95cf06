"""SparsestMax: a map onto the simplex that grows sparser with a radius, and sparsemax under it.

Shao et al., "SSN: Learning Sparse Switchable Normalization via SparsestMax", CVPR 2019;
Martins and Astudillo, "From Softmax to Sparsemax", ICML 2016, algorithm 1.

Nothing here branches on the values of a tensor, so that nothing waits for the device and a
network compiles, or is captured in a CUDA graph, with these functions inside.
"""

import torch
from torch import Tensor

__all__ = ['sparsemax', 'sparsestmax']


def sparsemax(logits: Tensor) -> Tensor:
    """Euclidean projection onto the simplex.

    Args:
        logits: of shape (..., K).

    Returns:
        Of the same shape; not negative, sums to 1 over the last axis.
    """
    # All pairs instead of a sort: K is 3, and a sort would be an operator of its own, where
    # everything else fuses. Tied logits count each other, and are all in the support or none.
    others = logits.unsqueeze(-2)
    not_smaller = (others >= logits.unsqueeze(-1)).to(logits.dtype)
    rank, total = not_smaller.sum(-1), (not_smaller * others).sum(-1)
    support = (1 + rank * logits > total).to(logits.dtype)
    threshold = ((support * logits).sum(-1, keepdim=True) - 1) / support.sum(-1, keepdim=True)
    return (logits - threshold).clamp(min=0)


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
        radius: of shape () or (..., 1), in [0, 1].

    Returns:
        Of the logits' shape; not negative, sums to 1 over the last axis. Differentiable in the
        logits.
    """
    # Nearer than this, a point is at the boundary of a face, or at its centre: there, no direction
    # in which to leave it is left but rounding. (The released code divides by that distance, and
    # its result leaves the simplex.) No global: TorchScript takes none.
    tied = 1e-6
    point = sparsemax(logits)
    radius = radius.to(logits.dtype)
    previous: Tensor | None = None
    for _ in range(logits.shape[-1] - 1):
        face = (point > tied).to(point.dtype)
        centre = face / face.sum(-1, keepdim=True)
        if previous is not None:
            between = (centre - previous).square().sum(-1, keepdim=True)
            radius = (radius.square() - between).clamp(min=0).sqrt()
        offset = point - centre
        squared = offset.square().sum(-1, keepdim=True)
        near = (squared < radius.square()) & (squared > tied**2)
        # Where it is not near, neither the value nor the gradient of what follows is used; but a
        # gradient of infinity would still spoil the sum.
        length = torch.where(near, squared, 1.0).sqrt()
        pushed = centre + offset * (radius / length)
        point, previous = torch.where(near, sparsemax(pushed), point), centre
    return point
