"""Kinetics' forms, as mmaction2's tools lay them out: videos, or a folder of frames for each.

Frames are the same, bit for bit, for the same seed. The bytes of the videos are too as a rule, for
the same version of PyAV: x264 runs in one thread, and no file holds a date. But twice they were
not, in processes that had done much else before; the cause is not known.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from normplug.errors import UserError

from .clip import Clip, ClipMaker

__all__ = ['IMAGES_PER_CLIP', 'write_rawframes', 'write_videos']

# A clip takes as long as 30 pictures. One of 200 in val is half a per cent.
IMAGES_PER_CLIP = {'train': 2, 'val': 1}
FRAMES_PER_SECOND = 30
# Nearly without loss: noise of the camera stays. A key frame every 16 frames makes seeking fast;
# without frames that refer to later ones, all decoders count alike.
_X264 = {'crf': '18', 'preset': 'veryfast', 'g': '16', 'bf': '0'}


def write_videos(folder: Path, maker: ClipMaker, counts: Mapping[str, int]) -> None:
    """Write `videos_<split>/<class>/<index>_scan<scan>.mp4` and the lists of `VideoDataset`.

    `kinetics400_<split>_list_videos.txt` has a line `<class>/<index>_scan<scan>.mp4 <label>` for
    each clip; `label_map.txt` the classes in the order of their labels. There is a clip for each
    `IMAGES_PER_CLIP[split]` of `counts[split]`, equally many for each class, rounded up.

    Raises:
        UserError: PyAV is not installed, or has no x264.
    """
    for split, count in counts.items():
        lines = []
        for name, clip in _clips(maker, split, count):
            _encode((folder / f'videos_{split}' / f'{name}.mp4'), clip.frames)
            lines.append(f'{name}.mp4 {clip.label}')
        _write_lines(folder / f'kinetics400_{split}_list_videos.txt', lines)
    _write_lines(folder / 'label_map.txt', maker.settings.classes)


def write_rawframes(folder: Path, maker: ClipMaker, counts: Mapping[str, int]) -> None:
    """Write `rawframes_<split>/<class>/<index>_scan<scan>/img_<frame>.jpg`, of the same clips.

    Frames count from 00001. `kinetics400_<split>_list_rawframes.txt`, of `RawframeDataset`, has a
    line `<class>/<index>_scan<scan> <frames> <label>` for each clip.
    """
    for split, count in counts.items():
        lines = []
        for name, clip in _clips(maker, split, count):
            frames = folder / f'rawframes_{split}' / name
            frames.mkdir(parents=True)
            for number, frame in enumerate(clip.frames, 1):
                Image.fromarray(frame).save(frames / f'img_{number:05d}.jpg', quality=95)
            lines.append(f'{name} {maker.settings.frames} {clip.label}')
        _write_lines(folder / f'kinetics400_{split}_list_rawframes.txt', lines)
    _write_lines(folder / 'label_map.txt', maker.settings.classes)


def _clips(maker: ClipMaker, split: str, count: int) -> Iterator[tuple[str, Clip]]:
    """(Class folder and name, clip) of a split."""
    classes = maker.settings.classes
    each = math.ceil(count / IMAGES_PER_CLIP[split] / len(classes))
    for index in range(each * len(classes)):
        clip = maker.clip(split, index)
        yield f'{classes[clip.label]}/{index:05d}_scan{clip.scan:04d}', clip


def _write_lines(path: Path, lines: tuple[str, ...] | list[str]) -> None:
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _encode(path: Path, frames: np.ndarray) -> None:
    """Write (T, H, W, 3) uint8 as H.264 in an mp4 file; H and W are even."""
    try:
        import av  # here: the other forms do without
    except ModuleNotFoundError as error:
        raise UserError(f"videos need PyAV ({error}): pip install 'normplug[demo]'") from error
    if 'libx264' not in av.codec.codecs_available:
        raise UserError('this build of PyAV has no encoder libx264: pip install --force av')
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w', options={'fflags': '+bitexact'}) as file:
        stream = file.add_stream('libx264', FRAMES_PER_SECOND, options=_X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        stream.codec_context.thread_count = 1
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        file.mux(stream.encode())
