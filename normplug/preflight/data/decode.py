"""Read one image, map of labels or video as mm does, but strictly."""

from __future__ import annotations

import io
import os

import numpy as np

__all__ = ['UnreadableError', 'image_size', 'read_labels', 'read_video']

_STRICT = ('JPEG', 'PNG')
# A header may promise a few frames more than there are: edit lists hide some.
_WHOLE = 0.9


class UnreadableError(Exception):
    """The file is missing, empty, truncated or no image; the message says which."""


def image_size(path: str, flag: str = 'color', backend: str = 'cv2') -> tuple[int, int]:
    """Decode all of an image.

    Args:
        path: a local file.
        flag: ``color_type`` of mmcv's ``LoadImageFromFile``.
        backend: its ``imdecode_backend``.

    Returns:
        (width, height) as mm gets them: turned as the camera's EXIF tag says.

    Raises:
        UnreadableError: that did not work.
    """
    height, width = _decode(path, flag, backend).shape[:2]
    return width, height


def read_labels(path: str, backend: str = 'pillow') -> np.ndarray:
    """Decode a map of labels as mmseg's LoadAnnotations does, before it maps the labels.

    Args:
        path: a local file.
        backend: ``imdecode_backend`` of LoadAnnotations.

    Returns:
        (H, W), or (H, W, channels) where the file holds colours; any integer type, or bool.

    Raises:
        UnreadableError: that did not work.
    """
    return _decode(path, 'unchanged', backend).squeeze()


def read_video(path: str) -> int:
    """Decode all of a video by OpenCV, which mmcv brings, and return the number of frames.

    Raises:
        UnreadableError: the file is missing, empty or no video, or a tenth or more of the frames
            that its header promises do not decode.
    """
    import cv2

    _check_file(path)
    reader = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    try:
        promised, frames = max(0, int(reader.get(cv2.CAP_PROP_FRAME_COUNT))), 0
        while reader.grab():
            frames += 1
    finally:
        reader.release()
    if not frames:
        raise UnreadableError('is no video, or damaged')
    if frames < _WHOLE * promised:
        raise UnreadableError(f'is damaged ({frames} of {promised} frames decode)')
    return frames


def _check_file(path: str) -> None:
    if not os.path.isfile(path):
        raise UnreadableError('is missing')
    if not os.path.getsize(path):
        raise UnreadableError('is empty')


def _decode(path: str, flag: str, backend: str) -> np.ndarray:
    import mmcv
    from PIL import Image, UnidentifiedImageError

    _check_file(path)
    with open(path, 'rb') as file:
        content = file.read()
    try:
        image = Image.open(io.BytesIO(content), formats=_STRICT)
        image.load()  # cv2 may decode a part of a truncated file
    except (UnidentifiedImageError, Image.DecompressionBombError):
        pass  # TIFF and the like, and images too large for Pillow: mm reads them all the same
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
        raise UnreadableError(f'is damaged ({error})') from error
    try:
        decoded = mmcv.imfrombytes(content, flag=flag, backend=backend)
    except Exception as error:  # each backend raises its own kinds
        cause = str(error).partition('\n')[0]
        how = f'imdecode_backend={backend!r}, color_type={flag!r}'  # which may be the mistake
        raise UnreadableError(f'does not decode with {how} ({cause})') from error
    if decoded is None:
        raise UnreadableError('is no image, or damaged')
    return decoded
