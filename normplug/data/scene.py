"""The compositor: one picture of digits on a photograph, with its truth.

Legend: H = W = `SceneSettings.size`, K = number of digits in the picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .light import Light
from .scans import CLASSES, PHOTOS, SPLITS, load_material

__all__ = [
    'LUMA',
    'Maker',
    'Scene',
    'SceneMaker',
    'SceneSettings',
    'cover',
    'draw_colour',
    'expose',
]

# Ink (0 to 1) where a stroke starts to cover the photograph, and where it covers it fully.
INK_RANGE = (0.35, 0.65)
# A stroke's mask is where it covers more than half; between these, neither class is certain.
OPAQUE = 0.5
UNSURE = (0.15, 0.85)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
PLACEMENTS = 50
# A picture's light is drawn apart from the rest, which is the same with and without it.
LIGHT_STREAM = 1


@dataclass(frozen=True)
class SceneSettings:
    """How pictures look. Lengths are shares of the picture's side; ranges are (low, high).

    Attributes:
        size: the side of the picture in pixels.
        digits: how many digits a picture that is not empty gets, ends included.
        empty: share of pictures without any digit.
        side: the side of a scan as pasted.
        centre: where a scan's centre may lie, on both axes; near 0 and 1 the border cuts it.
        rotation: the largest rotation in degrees, either way.
        min_visible: the share of a digit's strokes that must stay visible, counting what the
            border cuts off and what later digits cover.
        min_area: the least visible area, as a share of the picture's.
        lightness: the ranges that a digit's lightness (0 black, 1 white) is drawn from.
        tint: how far each colour channel may lie from that lightness.
        contrast: the least difference in lightness to what the digit is pasted on.
        photos: the photographs to crop.
        crop: the side of a crop, in pixels of the photograph.
        gamma: the exponent applied to the photograph in every picture, above 1 darkens.
        gain: the factor applied to the photograph's red, green and blue after that.
        light: that of each picture; None for one light in all of them.
    """

    size: int = 128
    digits: tuple[int, int] = (4, 8)
    empty: float = 0.03
    side: tuple[float, float] = (0.2, 0.42)
    centre: tuple[float, float] = (0.06, 0.94)
    rotation: float = 15.0
    min_visible: float = 0.5
    min_area: float = 0.003
    lightness: tuple[tuple[float, float], ...] = ((0.0, 0.25), (0.75, 1.0))
    tint: float = 0.2
    contrast: float = 0.35
    photos: tuple[str, ...] = PHOTOS
    crop: tuple[int, int] = (96, 180)
    gamma: float = 1.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    light: Light | None = field(default_factory=Light)


@dataclass(frozen=True)
class Scene:
    """One picture and its truth.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        labels: (K,) int64, the digits 0 to 9, in the order of pasting (later covers earlier).
        scans: (K,) int64, which of scikit-learn's scans each digit is.
        masks: (K, H, W) bool, each digit's visible strokes; disjoint, none empty.
        unsure: (H, W) bool, the thin band around strokes that belongs to neither side.
    """

    image: np.ndarray
    labels: np.ndarray
    scans: np.ndarray
    masks: np.ndarray
    unsure: np.ndarray


class Maker:
    """What makes number `index` of a split from `seed`, in any order and independently.

    Raises:
        ValueError: a negative seed, or settings that `load_material` refuses.
    """

    def __init__(self, settings: SceneSettings, seed: int) -> None:
        """Load the material; nothing is made yet."""
        if seed < 0:
            raise ValueError(f'seed {seed} must not be negative')
        self.settings = settings
        self.seed = seed
        self._materials = {split: load_material(split, seed, settings.photos) for split in SPLITS}


class SceneMaker(Maker):
    """Makes scenes."""

    def scene(self, split: str, index: int, labels: Sequence[int] | None = None) -> Scene:
        """Compose a scene; `labels` fixes its digits instead of drawing them.

        A digit that finds no place (see `SceneSettings.min_visible` and `contrast`) is left out.

        Raises:
            RuntimeError: `labels` were given and one of them found no place.
        """
        settings, material = self.settings, self._materials[split]
        place = [self.seed, SPLITS.index(split), index]
        rng = np.random.default_rng(place)
        drawn = labels
        if labels is None:
            empty = rng.random() < settings.empty
            count = 0 if empty else rng.integers(*settings.digits, endpoint=True)
            drawn = rng.integers(len(CLASSES), size=count)
        canvas = _Canvas(_background(rng, material.photos, settings), settings)
        for label in drawn:
            scan = rng.choice(material.by_class[label])
            placed = canvas.place(rng, material.scans[scan], label, scan)
            if not placed and labels is not None:
                raise RuntimeError(
                    f'digit {label} found no place in scene {index} of {split}: '
                    'lower min_visible, min_area or contrast in SceneSettings'
                )
        if settings.light is not None:
            canvas.image = settings.light.shine(
                np.random.default_rng([*place, LIGHT_STREAM]), canvas.image
            )
        return canvas.scene()


class _Canvas:
    """A picture under construction, in float RGB of [0, 1]."""

    def __init__(self, image: np.ndarray, settings: SceneSettings) -> None:
        self.settings = settings
        self.image = image
        self.labels, self.scans = [], []
        self.masks, self.full_areas = [], []
        self.unsure = np.zeros(image.shape[:2], bool)

    def place(self, rng: np.random.Generator, ink: np.ndarray, label: int, scan: int) -> bool:
        """Paste one digit where it and those below it stay visible; False if no place was found."""
        settings, size = self.settings, self.settings.size
        stroke = _stroke(rng, ink, settings)
        areas = [*self.full_areas, np.count_nonzero(stroke > OPAQUE)]
        low, high = settings.centre
        for _ in range(PLACEMENTS):
            y, x = np.round(rng.uniform(low, high, 2) * size - len(stroke) / 2).astype(int)
            # The part of the stroke inside the picture, and where in the picture that is.
            alpha = stroke[max(-y, 0) : size - y, max(-x, 0) : size - x]
            window = np.s_[max(y, 0) : y + len(stroke), max(x, 0) : x + len(stroke)]
            mask = np.zeros((size, size), bool)
            mask[window] = covered = alpha > OPAQUE
            masks = [below & ~mask for below in self.masks] + [mask]
            if not all(map(self._visible, masks, areas)):
                continue
            colour = draw_colour(rng, settings)
            if abs(LUMA @ (colour - self.image[window][covered].mean(0))) < settings.contrast:
                continue
            self.image[window] += alpha[..., None] * (colour - self.image[window])
            unsure = (alpha > UNSURE[0]) & (alpha < UNSURE[1])
            self.unsure[window] = unsure | (self.unsure[window] & (alpha <= UNSURE[0]))
            self.masks, self.full_areas = masks, areas
            self.labels.append(label)
            self.scans.append(scan)
            return True
        return False

    def scene(self) -> Scene:
        shape = (len(self.masks), *self.unsure.shape)
        return Scene(
            image=np.round(self.image * 255).astype(np.uint8),
            labels=np.array(self.labels, np.int64),
            scans=np.array(self.scans, np.int64),
            masks=np.array(self.masks, bool).reshape(shape),
            unsure=self.unsure,
        )

    def _visible(self, mask: np.ndarray, full_area: int) -> bool:
        area = np.count_nonzero(mask)
        settings = self.settings
        return (
            area >= settings.min_area * settings.size**2
            and area >= settings.min_visible * full_area
        )


def _background(
    rng: np.random.Generator, photos: Sequence[np.ndarray], settings: SceneSettings
) -> np.ndarray:
    """A random crop of one photograph, (H, W, 3) float32 in [0, 1]."""
    photo = photos[rng.integers(len(photos))]
    side = rng.integers(*settings.crop, endpoint=True)
    y = rng.integers(photo.shape[0] - side, endpoint=True)
    x = rng.integers(photo.shape[1] - side, endpoint=True)
    crop = photo[y : y + side, x : x + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    size = (settings.size, settings.size)
    resized = Image.fromarray(np.ascontiguousarray(crop)).resize(size, Image.Resampling.BICUBIC)
    return expose(resized, settings)


def expose(photo: Image.Image, settings: SceneSettings) -> np.ndarray:
    """A part of a photograph after `gamma` and `gain`: (H, W, 3) float32 in [0, 1]."""
    curve = (np.arange(256) / 255) ** settings.gamma
    table = np.clip(np.outer(settings.gain, curve) * 255, 0, 255).round().astype(int)
    return np.asarray(photo.point(table.ravel().tolist()), np.float32) / 255


def _stroke(rng: np.random.Generator, ink: np.ndarray, settings: SceneSettings) -> np.ndarray:
    """The scan, scaled smoothly and rotated: (T, T) float32 coverage in [0, 1]."""
    scale = rng.uniform(*settings.side) * settings.size / len(ink)
    angle = math.radians(rng.uniform(-settings.rotation, settings.rotation))
    # Wide enough for any rotation: the diagonal of the scan.
    tile = math.ceil(scale * len(ink) * 2**0.5)
    return cover(ink, tile, (tile / 2, tile / 2), scale, angle)


def cover(
    ink: np.ndarray, size: int, centre: tuple[float, float], scale: float, angle: float
) -> np.ndarray:
    """Draw a scan smoothly: (size, size) float32 coverage in [0, 1].

    Args:
        ink: (8, 8) float64 in [0, 1].
        size: the side of the result in pixels.
        centre: where in it the scan's centre comes to lie, (x, y) in pixels.
        scale: pixels of the result for each of the scan.
        angle: the rotation in radians.
    """
    padded = np.pad(ink, 2).astype(np.float32)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    # From the result to the scan, (x, y, 1) -> (x, y), the centre to the centre.
    x, y = centre
    middle = len(padded) / 2
    matrix = (cos, sin, middle - (cos * x + sin * y), -sin, cos, middle - (cos * y - sin * x))
    smooth = Image.fromarray(padded).transform(
        (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    low, high = INK_RANGE
    return np.clip((np.asarray(smooth) - low) / (high - low), 0, 1)


def draw_colour(rng: np.random.Generator, settings: SceneSettings) -> np.ndarray:
    """Draw a digit's colour by `lightness` and `tint`: (3,) float32 in [0, 1], RGB."""
    low, high = settings.lightness[rng.integers(len(settings.lightness))]
    tint = rng.uniform(-settings.tint, settings.tint, 3)
    return np.clip(rng.uniform(low, high) + tint, 0, 1).astype(np.float32)
