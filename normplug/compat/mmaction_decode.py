"""mmaction2's `PyAVDecode`, without the work that its result does not need.

It converts each frame up to the last of a clip to RGB, of which the clip keeps a few, and since
17.0 PyAV starts a thread per core for each of them (PyAV-Org/PyAV#2200). Small frames then take
several times as long, and the workers of a data loader disturb one another. Here the frames of the
clip alone are converted, in one thread. The images are the same, and those of the other modes, and
of later transforms, are mmaction2's own.
"""

from __future__ import annotations

import functools
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np

from normplug.compat.on_import import on_import

__all__ = ['install']


def install() -> None:
    """Change `PyAVDecode` once mmaction2 imports it; calling it again changes nothing."""
    on_import('mmaction.datasets.transforms.loading', _change)


def _change(module: ModuleType) -> None:
    kind = module.PyAVDecode
    of_mmaction = kind.transform

    @functools.wraps(of_mmaction)
    def transform(self: Any, results: dict[str, Any]) -> dict[str, Any]:
        if self.mode != 'accurate':
            return of_mmaction(self, results)
        container = results['video_reader']
        if self.multi_thread:
            container.streams.video[0].thread_type = 'AUTO'
        wanted = results['frame_inds'] = np.ravel(results['frame_inds'])
        frames = list(islice(container.decode(video=0), int(wanted.max()) + 1))
        # Of a video with fewer frames than its header says, mmaction2 starts again.
        images = {i: _image(frames[i % len(frames)]) for i in set(wanted.tolist())}
        results['imgs'] = [images[i] for i in wanted.tolist()]
        results['original_shape'] = results['img_shape'] = results['imgs'][0].shape[:2]
        results['video_reader'] = None
        return results

    kind.transform = transform


def _image(frame: Any) -> np.ndarray:
    """Return (H, W, 3) uint8 in RGB."""
    return frame.to_rgb(**_one_thread()).to_ndarray()


@functools.cache
def _one_thread() -> dict[str, int]:
    """PyAV before 17.0 converts in one thread, and has no such argument."""
    import av

    return {'threads': 1} if int(av.__version__.split('.')[0]) >= 17 else {}
