"""The folder format of image classification: one folder for each class."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from .scans import CLASSES
from .scene import SceneMaker, SceneSettings

__all__ = ['CROPS_PER_IMAGE', 'crop_settings', 'write_classification']

CROPS_PER_IMAGE = 2


def crop_settings(settings: SceneSettings) -> SceneSettings:
    """One digit that fills a good part of a picture of half the side, looks unchanged otherwise."""
    low, high = settings.crop
    return replace(
        settings,
        size=settings.size // 2,
        digits=(1, 1),
        empty=0.0,
        side=(0.55, 0.95),
        centre=(0.4, 0.6),
        crop=(low // 2, high // 2),
    )


def write_classification(folder: Path, maker: SceneMaker, counts: Mapping[str, int]) -> None:
    """Write `<split>/<digit>/<index>_scan<scan>.png`, RGB, equally many for each digit.

    `scan` is the index of the digit in scikit-learn's `load_digits`. There are `CROPS_PER_IMAGE`
    times `counts[split]` crops, rounded up to a multiple of ten.
    """
    for split, count in counts.items():
        for label in range(len(CLASSES)):
            (folder / split / str(label)).mkdir(parents=True)
        for index in range(math.ceil(CROPS_PER_IMAGE * count / len(CLASSES)) * len(CLASSES)):
            label = index % len(CLASSES)
            scene = maker.scene(split, index, labels=[label])
            name = f'{index:05d}_scan{scene.scans[0]:04d}.png'
            Image.fromarray(scene.image).save(folder / split / str(label) / name, compress_level=1)
