"""Clips: one digit that moves over a moving photograph. Digit and motion together are the class.

What a motion changes runs through its range again and again, from a phase that is drawn uniformly.
So at each moment height and size of the digit are distributed alike in all motions, and one frame
tells the digit alone. No motion becomes another in a mirror, so that clips may be flipped.

Legend: T = `FRAMES`, H = W = `SceneSettings.size`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .scans import CLASSES, SPLITS
from .scene import LUMA, Maker, SceneSettings, cover, draw_colour, expose

__all__ = [
    'CLIP_CLASSES',
    'DIGITS',
    'FRAMES',
    'MOTIONS',
    'Clip',
    'ClipMaker',
    'Track',
    'clip_settings',
    'make_track',
]

# What it changes, and in which direction. Each has its reverse in time.
MOTIONS = {
    'falling': ('height', 1),
    'growing': ('side', 1),
    'rising': ('height', -1),
    'shrinking': ('side', -1),
}
# Few, as each class needs many clips, and unlike, so that the motion is left to learn
# (docs/lab/video.md).
DIGITS = (1, 0)
# As folders of Kinetics, in the order of the alphabet, which numbers them.
CLIP_CLASSES = tuple(f'{CLASSES[digit]}_{motion}' for digit in DIGITS for motion in MOTIONS)
# 32 frames at interval 2 span 64: there are 17 places for them.
FRAMES = 80
# Frames until a motion begins anew.
PERIOD = (40.0, 72.0)
# How far the photograph moves within a clip, as a share of the crop's side.
PAN = 0.05
COLOURS = 50
# Clips are drawn apart from pictures, and their light apart from the rest.
CLIP_STREAM, LIGHT_STREAM = 2, 1


def clip_settings(settings: SceneSettings) -> SceneSettings:
    """One digit in pictures of half the side, which is even, as the codec asks."""
    low, high = settings.crop
    return replace(
        settings,
        size=settings.size // 4 * 2,
        digits=(1, 1),
        empty=0.0,
        side=(0.3, 0.6),
        centre=(0.25, 0.75),
        crop=(low // 2, high // 2),
    )


@dataclass(frozen=True)
class Track:
    """Where the digit is in each frame, all (T,) float64, as shares of the picture's side.

    Attributes:
        x: the centre, from the left.
        y: the centre, from the top.
        side: the side of the scan.
    """

    x: np.ndarray
    y: np.ndarray
    side: np.ndarray


@dataclass(frozen=True)
class Clip:
    """One clip and its truth.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB.
        label: index into `CLIP_CLASSES`.
        scan: which of scikit-learn's scans the digit is.
        track: where it is.
    """

    frames: np.ndarray
    label: int
    scan: int
    track: Track


def make_track(rng: np.random.Generator, motion: str, settings: SceneSettings) -> Track:
    """Draw a track; the draws are the same for all motions.

    x moves a little whatever the motion.
    """
    phases = dict(zip(('height', 'side'), rng.random(2)[:, None].repeat(FRAMES, 1), strict=True))
    start, end = rng.uniform(*settings.centre, 2)
    changed, direction = MOTIONS[motion]
    passed = direction * np.arange(FRAMES) / rng.uniform(*PERIOD)
    phases[changed] = (phases[changed] + passed) % 1
    low, high = settings.centre
    smallest, largest = settings.side
    return Track(
        x=np.linspace(start, end, FRAMES),
        y=low + (high - low) * phases['height'],
        side=smallest * (largest / smallest) ** phases['side'],
    )


class ClipMaker(Maker):
    """Makes clips.

    Of the settings, `digits`, `empty`, `min_visible` and `min_area` have no meaning here: a clip
    has one digit, of which the border cuts off a little at most.
    """

    def clip(self, split: str, index: int) -> Clip:
        """Make a clip. The classes take turns.

        Raises:
            RuntimeError: no colour differs enough from the photograph (`SceneSettings.contrast`).
        """
        settings, material = self.settings, self._materials[split]
        place = [self.seed, SPLITS.index(split), index, CLIP_STREAM]
        rng = np.random.default_rng(place)
        label = index % len(CLIP_CLASSES)
        digit, motion = divmod(label, len(MOTIONS))
        scan = rng.choice(material.by_class[DIGITS[digit]])
        angle = math.radians(rng.uniform(-settings.rotation, settings.rotation))
        track = make_track(rng, tuple(MOTIONS)[motion], settings)
        image = _moving_photograph(rng, material.photos, settings)
        colour = _contrasting_colour(rng, image, settings)
        for frame, x, y, side in zip(image, track.x, track.y, track.side, strict=True):
            scale = side * settings.size / len(material.scans[scan])
            centre = (x * settings.size, y * settings.size)
            alpha = cover(material.scans[scan], settings.size, centre, scale, angle)
            frame += alpha[..., None] * (colour - frame)
        if settings.light is not None:
            image = settings.light.shine(np.random.default_rng([*place, LIGHT_STREAM]), image)
        return Clip(np.round(image * 255).astype(np.uint8), label, int(scan), track)


def _moving_photograph(
    rng: np.random.Generator, photos: tuple[np.ndarray, ...], settings: SceneSettings
) -> np.ndarray:
    """A crop that moves straight over one photograph, (T, H, W, 3) float32 in [0, 1]."""
    photo = photos[rng.integers(len(photos))]
    side = rng.integers(*settings.crop, endpoint=True)
    room = np.array(photo.shape[1::-1]) - side
    shift = np.clip(rng.uniform(-PAN, PAN, 2) * side, -room, room)
    start = rng.uniform(np.maximum(-shift, 0), room - np.maximum(shift, 0))
    if rng.random() < 0.5:
        photo = photo[:, ::-1]
    whole = Image.fromarray(np.ascontiguousarray(photo))
    frames, size = [], (settings.size, settings.size)
    for x, y in start + np.linspace(0, 1, FRAMES)[:, None] * shift:
        box = (x, y, x + side, y + side)
        frames.append(np.asarray(whole.resize(size, Image.Resampling.BICUBIC, box)))
    # As one tall picture: there is a table to make for each call.
    tall = expose(Image.fromarray(np.concatenate(frames)), settings)
    return tall.reshape(FRAMES, *size, 3)


def _contrasting_colour(
    rng: np.random.Generator, image: np.ndarray, settings: SceneSettings
) -> np.ndarray:
    """A colour that differs from the clip's mean: what is below the digit depends on its motion."""
    mean = image.mean((0, 1, 2))
    for _ in range(COLOURS):
        colour = draw_colour(rng, settings)
        if abs(LUMA @ (colour - mean)) >= settings.contrast:
            return colour
    raise RuntimeError('no colour differs enough: lower contrast in SceneSettings')
