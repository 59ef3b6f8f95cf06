"""The raw material that scikit-learn ships: 1797 scanned digits and two photographs.

Both are split here, so that train and val share neither a scan nor a region of a photograph.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits, load_sample_image

__all__ = ['CLASSES', 'PHOTOS', 'SPLITS', 'Material', 'load_material']

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
PHOTOS = ('china.jpg', 'flower.jpg')
SPLITS = ('train', 'val')
VAL_SCANS = 0.2
# A photograph's columns left of this share are train's, the others val's.
TRAIN_COLUMNS = 0.7


@dataclass(frozen=True)
class Material:
    """What one split may use.

    Attributes:
        scans: (1797, 8, 8) float64 ink in [0, 1]; all scans, whatever the split.
        by_class: for each of the ten classes the indices into `scans` that this split may use.
        photos: the photographs' regions that this split may use, each (H, W, 3) uint8.
    """

    scans: np.ndarray
    by_class: tuple[np.ndarray, ...]
    photos: tuple[np.ndarray, ...]


def load_material(split: str, seed: int, photos: tuple[str, ...] = PHOTOS) -> Material:
    """Load the scans and photographs of one split; `seed` decides which scans are val's.

    Raises:
        ValueError: `split` is not in `SPLITS`, or a name is not in `PHOTOS`.
    """
    if split not in SPLITS:
        raise ValueError(f'split {split!r} is not one of {", ".join(SPLITS)}')
    unknown = [name for name in photos if name not in PHOTOS]
    if unknown or not photos:
        raise ValueError(f'photos {photos!r} must be one or more of {", ".join(PHOTOS)}')

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    n_val = round(VAL_SCANS * len(order))
    chosen = order[:n_val] if split == 'val' else order[n_val:]
    by_class = tuple(chosen[digits.target[chosen] == k] for k in range(len(CLASSES)))

    regions = []
    for name in photos:
        photo = load_sample_image(name)
        border = round(TRAIN_COLUMNS * photo.shape[1])
        regions.append(photo[:, :border] if split == 'train' else photo[:, border:])
    return Material(digits.images / 16, by_class, tuple(regions))
