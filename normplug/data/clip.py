"""Clips: one digit that moves over a moving photograph. Digit and motion together are the class.

What a motion changes runs through its range there and back, again and again, from a phase that is
drawn uniformly. So at each moment place and size of the digit are distributed alike in all motions,
and one frame tells the digit alone. No motion becomes another in a mirror, so that clips may be
flipped.

Legend: T = `ClipSettings.frames`, H = W = `ClipSettings.size`.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .scans import CLASSES, SPLITS
from .scene import LUMA, Maker, SceneSettings, cover, draw_colour, expose

__all__ = [
    'MOTIONS',
    'Clip',
    'ClipMaker',
    'ClipSettings',
    'Track',
    'clip_settings',
    'make_track',
]

# What of the digit's track each changes. Axes and not directions: a network that starts from
# kernels inflated over time sees those at once (docs/lab/video.md).
MOTIONS = {'bouncing': 'y', 'pulsing': 'side', 'resting': None, 'sliding': 'x'}
COLOURS = 50
# Clips are drawn apart from pictures, and their light apart from the rest.
CLIP_STREAM, LIGHT_STREAM = 2, 1


@dataclass(frozen=True)
class ClipSettings(SceneSettings):
    """How clips look and move, beside what `SceneSettings` says of a picture.

    Of the latter, `digits`, `empty`, `min_visible` and `min_area` have no meaning here: a clip has
    one digit, of which the border cuts off a little at most. `side` and `centre` are the ranges
    that the motions run through.

    Attributes:
        numerals: the digits that are shown. Few, as each class needs many clips, and unlike, so
            that the motion is left to learn (docs/lab/video.md).
        frames: of a clip; 32 at interval 2 span 64.
        period: frames there and back.
        pan: how far the photograph moves within a clip, as a share of the crop's side.
    """

    digits: tuple[int, int] = (1, 1)
    empty: float = 0.0
    side: tuple[float, float] = (0.3, 0.7)
    centre: tuple[float, float] = (0.25, 0.75)
    numerals: tuple[int, ...] = (1, 0)
    frames: int = 64
    period: tuple[float, float] = (24.0, 48.0)
    pan: float = 0.05

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, as folders of Kinetics, in the order of the alphabet, which numbers them."""
        return tuple(f'{CLASSES[digit]}_{motion}' for digit in self.numerals for motion in MOTIONS)


def clip_settings(settings: SceneSettings) -> ClipSettings:
    """Those of clips beside pictures of these: half the side, which is even, as the codec asks."""
    low, high = settings.crop
    own = ClipSettings.__annotations__
    kept = {key: value for key, value in vars(settings).items() if key not in own}
    kept.update(size=settings.size // 4 * 2, crop=(low // 2, high // 2))
    return ClipSettings(**kept)


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
        label: index into `ClipSettings.classes`.
        scan: which of scikit-learn's scans the digit is.
        track: where it is.
    """

    frames: np.ndarray
    label: int
    scan: int
    track: Track


def make_track(rng: np.random.Generator, motion: str, settings: ClipSettings) -> Track:
    """Draw a track; the draws are the same for all motions."""
    phases = dict(zip(('x', 'y', 'side'), rng.random(3), strict=True))
    passed = np.arange(settings.frames) / rng.uniform(*settings.period)

    def share(kind: str) -> np.ndarray:
        """Of the range, from 0 to 1, there and back."""
        phase = phases[kind] + passed * (MOTIONS[motion] == kind)
        return np.abs(2 * (phase % 1) - 1)

    low, high = settings.centre
    smallest, largest = settings.side
    return Track(
        x=low + (high - low) * share('x'),
        y=low + (high - low) * share('y'),
        side=smallest * (largest / smallest) ** share('side'),
    )


class ClipMaker(Maker):
    """Makes clips."""

    settings: ClipSettings

    def clip(self, split: str, index: int) -> Clip:
        """Make a clip. The classes take turns.

        Raises:
            RuntimeError: no colour differs enough from the photograph (`SceneSettings.contrast`).
        """
        settings, material = self.settings, self._materials[split]
        place = [self.seed, SPLITS.index(split), index, CLIP_STREAM]
        rng = np.random.default_rng(place)
        label = index % len(settings.classes)
        digit, motion = divmod(label, len(MOTIONS))
        scan = rng.choice(material.by_class[settings.numerals[digit]])
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
    rng: np.random.Generator, photos: tuple[np.ndarray, ...], settings: ClipSettings
) -> np.ndarray:
    """A crop that moves straight over one photograph, (T, H, W, 3) float32 in [0, 1]."""
    photo = photos[rng.integers(len(photos))]
    side = rng.integers(*settings.crop, endpoint=True)
    room = np.array(photo.shape[1::-1]) - side
    shift = np.clip(rng.uniform(-settings.pan, settings.pan, 2) * side, -room, room)
    start = rng.uniform(np.maximum(-shift, 0), room - np.maximum(shift, 0))
    if rng.random() < 0.5:
        photo = photo[:, ::-1]
    whole = Image.fromarray(np.ascontiguousarray(photo))
    frames, size = [], (settings.size, settings.size)
    for x, y in start + np.linspace(0, 1, settings.frames)[:, None] * shift:
        box = (x, y, x + side, y + side)
        frames.append(np.asarray(whole.resize(size, Image.Resampling.BICUBIC, box)))
    # As one tall picture: there is a table to make for each call.
    tall = expose(Image.fromarray(np.concatenate(frames)), settings)
    return tall.reshape(settings.frames, *size, 3)


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
