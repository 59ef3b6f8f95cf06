"""Cityscapes' segmentation format; also as two visual domains, day and night, each in one light."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from .scans import CLASSES
from .scene import Scene, SceneMaker, SceneSettings

__all__ = [
    'CITIES',
    'IGNORED',
    'PHOTO',
    'building_settings',
    'day_settings',
    'night_settings',
    'write_cityscapes',
]

# Train ids: 0 to 9 for the digits, 10 for the photograph, 255 (ignored, as in Cityscapes) for the
# band around strokes that is neither.
PHOTO = len(CLASSES)
IGNORED = 255
# As in Cityscapes, a city belongs to one split. Pictures go to a split's cities in turn.
CITIES = {'train': ('alba', 'brisa', 'corvo'), 'val': ('delta', 'estre')}


def building_settings(settings: SceneSettings) -> SceneSettings:
    """Digits on the photograph of a building, colours as they are."""
    return replace(settings, photos=('china.jpg',))


# The light of a picture varies as far as the night does: a network that was trained in it loses
# nothing from day to night (docs/lab/light_pilot_tables.md). So each domain has one light.


def day_settings(settings: SceneSettings) -> SceneSettings:
    """The same, all pictures in one light."""
    return replace(building_settings(settings), light=None)


def night_settings(settings: SceneSettings) -> SceneSettings:
    """Strongly coloured, dimmer digits on another photograph, dark and blue; one light too."""
    return replace(
        settings,
        photos=('flower.jpg',),
        gamma=1.8,
        gain=(0.4, 0.55, 0.8),
        lightness=((0.35, 0.7),),
        tint=0.35,
        contrast=0.2,
        light=None,
    )


def write_cityscapes(folder: Path, maker: SceneMaker, counts: Mapping[str, int]) -> None:
    """Write `leftImg8bit/<split>/<city>/<city>_<number>_000019_leftImg8bit.png` and `gtFine/…`."""
    for split, count in counts.items():
        for kind in ('leftImg8bit', 'gtFine'):
            for city in CITIES[split]:
                (folder / kind / split / city).mkdir(parents=True)
        for index in range(count):
            scene = maker.scene(split, index)
            number, turn = divmod(index, len(CITIES[split]))
            city = CITIES[split][turn]
            frame = f'{city}_{number:06d}_000019'
            images = folder / 'leftImg8bit' / split / city
            Image.fromarray(scene.image).save(images / f'{frame}_leftImg8bit.png', compress_level=1)
            labels = folder / 'gtFine' / split / city
            Image.fromarray(_labels(scene)).save(labels / f'{frame}_gtFine_labelTrainIds.png')


def _labels(scene: Scene) -> np.ndarray:
    labels = np.full(scene.unsure.shape, PHOTO, np.uint8)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        labels[mask] = label
    labels[scene.unsure] = IGNORED
    return labels
