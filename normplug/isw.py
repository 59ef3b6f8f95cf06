"""Instance selective whitening (ISW): the loss on a map's correlations, and which of them it takes.

Choi, Jung, Yun, Kim, Kim and Choo, "RobustNet: Improving Domain Generalization in Urban-Scene
Segmentation via Instance Selective Whitening", CVPR 2021; as in the released code.
"""

import numpy as np
import torch
from torch import Tensor

from normplug.precision import working_dtype

__all__ = ['correlation', 'isw_loss', 'lowest_cluster', 'sensitive_pairs']


def correlation(z: Tensor) -> Tensor:
    """Ψ = z zᵀ / (S − 1) of each image, in float32, or float64 for float64.

    The release adds 1e-5 to the diagonal, which nothing here reads.

    Args:
        z: a standardized map (N, C, *spatial) of S pixels, which may be changed in place later.

    Returns:
        (N, C, C).
    """
    z = z.to(working_dtype(z), copy=True).flatten(2)
    with torch.autocast(z.device.type, enabled=False):
        return z @ z.mT / max(z.shape[2] - 1, 1)


def isw_loss(psi: Tensor, mask: Tensor) -> Tensor:
    """Return the mean |Ψ| of the masked pairs, and over images, (); 0 of no pairs.

    Args:
        psi: (N, C, C).
        mask: bool, (C, C).
    """
    of_images = (psi.abs() * mask).sum((1, 2)) / mask.sum().clamp(min=1)
    return of_images.sum() / max(psi.shape[0], 1)


def sensitive_pairs(variance: Tensor, clusters: int) -> Tensor:
    """Return the pairs of channels whose correlation depends on the style of an image.

    All C² entries are clustered, those outside the strict upper triangle as 0, as in the release.
    What is not in the lowest cluster is sensitive.

    Args:
        variance: of Ψ between images and their photometric copies, (C, C).
        clusters: of k-means.

    Returns:
        bool, (C, C), on variance's device; true above the diagonal only.
    """
    upper = variance.double().triu(1)
    return upper > lowest_cluster(upper.flatten().cpu().numpy(), clusters)


def lowest_cluster(values: np.ndarray, clusters: int) -> float:
    """Return the largest value in the lowest cluster of an optimal k-means in one dimension.

    Dynamic programming over sorted values: the best last cluster of the first j values starts the
    later the larger j is, so that bisection finds all of them in n log n steps.

    Args:
        values: any number of them, at least one.
        clusters: k; the number of different values, if that is less.
    """
    points, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    size, centred = len(points), points - np.average(points, weights=counts)
    number, total, square = (
        np.concatenate(([0.0], np.cumsum(counts * centred**power))) for power in range(3)
    )

    def cost(start: np.ndarray | int, stop: np.ndarray | int) -> np.ndarray:
        """The squared deviations in a cluster of points[start:stop]."""
        deviation = total[stop] - total[start]
        return square[stop] - square[start] - deviation**2 / (number[stop] - number[start])

    clusters = min(clusters, size)
    first = np.arange(size + 1)  # where the lowest cluster of the first j points ends
    best = np.full(size + 1, np.inf)
    best[1:] = cost(0, first[1:])
    for k in range(2, clusters + 1):
        before, ends, best, first = best, first, np.full(size + 1, np.inf), np.zeros_like(first)
        waiting = [(k if k < clusters else size, size, k - 1, size - 1)]
        while waiting:
            low, high, left, right = waiting.pop()
            if low > high:
                continue
            stop = (low + high) // 2
            starts = np.arange(left, min(right, stop - 1) + 1)
            costs = before[starts] + cost(starts, stop)
            start = int(starts[costs.argmin()])
            best[stop], first[stop] = costs.min(), ends[start]
            waiting += [(low, stop - 1, left, start), (stop + 1, high, start, right)]
    return float(points[first[size] - 1])
