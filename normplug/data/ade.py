"""ADE20K's segmentation format. The scenes are those of the COCO form."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from .scans import CLASSES
from .scene import Scene, SceneMaker

__all__ = ['OTHER', 'PHOTO', 'write_ade']

# Labels: 1 to 10 for the digits 0 to 9, then the photograph, and 0 ('other' in ADE20K) for the
# band around strokes that is neither. mmseg's `reduce_zero_label=True` maps 0 to 255 (ignored)
# and 1..11 to 0..10.
OTHER = 0
PHOTO = len(CLASSES) + 1
FOLDERS = {'train': 'training', 'val': 'validation'}


def write_ade(folder: Path, maker: SceneMaker, counts: Mapping[str, int]) -> None:
    """Write `images/training/ADE_train_00000001.jpg`, `annotations/training/…png`, and val's."""
    for split, count in counts.items():
        images = folder / 'images' / FOLDERS[split]
        annotations = folder / 'annotations' / FOLDERS[split]
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for number in range(1, count + 1):
            scene = maker.scene(split, number - 1)
            name = f'ADE_{split}_{number:08d}'
            Image.fromarray(scene.image).save(images / f'{name}.jpg', quality=95)
            Image.fromarray(_labels(scene)).save(annotations / f'{name}.png')


def _labels(scene: Scene) -> np.ndarray:
    labels = np.full(scene.unsure.shape, PHOTO, np.uint8)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        labels[mask] = label + 1
    labels[scene.unsure] = OTHER
    return labels
