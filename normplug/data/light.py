"""Light and camera of a picture, drawn for each by itself, as in photographs."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

__all__ = ['Light']

# The contrast is changed about this.
MIDDLE_GREY = 0.5


@dataclass(frozen=True)
class Light:
    """How far light and camera differ from picture to picture: ranges (low, high).

    A picture x, digits and all, with colours in [0, 1], is blurred and becomes
    `contrast * (gain * x ** gamma - MIDDLE_GREY) + MIDDLE_GREY + offset`; then come the noise and
    the compression. How strong the default is was chosen in docs/lab/light_pilot.md.

    Attributes:
        gamma: of the exponent's natural logarithm; above 0 darkens.
        gain: of the logarithm of each channel's factor.
        contrast: of the logarithm of the contrast.
        offset: added to all channels.
        blur: standard deviation of a Gaussian, as a share of the picture's side.
        noise: standard deviation of the noise of each pixel and channel.
        jpeg: quality, whole numbers, of a JPEG that the picture is read back from; None for none.
    """

    gamma: tuple[float, float] = (-0.9, 0.9)
    gain: tuple[float, float] = (-0.5, 0.5)
    contrast: tuple[float, float] = (-1.2, 0.3)
    offset: tuple[float, float] = (-0.3, 0.3)
    blur: tuple[float, float] = (0.0, 0.006)
    noise: tuple[float, float] = (0.0, 0.03)
    jpeg: tuple[int, int] | None = None

    def shine(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Draw a light for an image, or for all frames of a clip, and return the image in it.

        Args:
            rng: decides the light; each frame has noise of its own.
            image: (H, W, 3) or (T, H, W, 3), float32 in [0, 1].
        """
        gamma, contrast = np.exp([rng.uniform(*self.gamma), rng.uniform(*self.contrast)])
        gain, offset = np.exp(rng.uniform(*self.gain, 3)), rng.uniform(*self.offset)
        blur, noise = rng.uniform(*self.blur) * image.shape[-3], rng.uniform(*self.noise)
        sigmas = (0,) * (image.ndim - 3) + (blur, blur, 0)
        lit = gain * gaussian_filter(image, sigmas) ** gamma
        lit = contrast * (lit - MIDDLE_GREY) + MIDDLE_GREY + offset
        lit = np.clip(lit + noise * rng.standard_normal(image.shape), 0, 1)
        if self.jpeg is None:  # nothing is drawn then, so that other pictures stay as they are
            return lit
        quality = int(rng.integers(*self.jpeg, endpoint=True))
        frames = lit.reshape(-1, *image.shape[-3:])
        return np.stack([_compressed(frame, quality) for frame in frames]).reshape(image.shape)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) in [0, 1], as a JPEG of this quality shows it."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(buffer, 'jpeg', quality=quality)
    return np.asarray(Image.open(buffer), np.float32) / 255
