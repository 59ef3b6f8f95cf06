"""End a training with the file's name if an image or video cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmengine.dataset import Compose

from normplug.errors import UserError

from .decode import UnreadableError, image_size, read_labels, read_video

__all__ = ['UnreadableFileError', 'unreadable_files_explained']


class UnreadableFileError(UserError):
    """A dataset met a file that cannot be read."""


@contextmanager
def unreadable_files_explained() -> Iterator[None]:
    """Find the file if loading a sample fails inside the block, in worker processes too.

    mm's loaders fail in many ways on a damaged file, most of which do not name it. So
    ``Compose``, which runs the transforms of a dataset, is wrapped: workers that are forked
    inside the block inherit that.

    Raises:
        UserError: names the file. An error of a sample whose files are good passes through.
    """
    original = Compose.__call__

    def call(self, data):
        sample = dict(data) if isinstance(data, dict) else {}  # transforms change it
        try:
            return original(self, data)
        except Exception as error:  # of any loader; it is raised again
            _raise_if_unreadable(sample, error)
            raise

    Compose.__call__ = call
    try:
        yield
    except UnreadableFileError as error:
        # A worker's message holds the traceback there, and at its end the one that we wrote.
        message = str(error).rsplit(f'{UnreadableFileError.__name__}: ', 1)[-1].strip()
        raise UserError(message) from error
    finally:
        Compose.__call__ = original


def _raise_if_unreadable(sample: dict, error: Exception) -> None:
    files = [(sample.get('img_path'), image_size), (sample.get('seg_map_path'), read_labels)]
    files += _of_clip(sample)
    for path, read in files:
        if not isinstance(path, str) or '://' in path:
            continue
        try:
            read(path)
        except UnreadableError as reason:
            raise UnreadableFileError(
                f'{path} {reason}: copy or download it again, or take it out of the dataset, then '
                'go on with --resume (tools/check_data.py CONFIG finds all such files)'
            ) from error


def _of_clip(sample: dict) -> Iterator[tuple[str, Callable]]:
    """The files of mmaction2's VideoDataset and RawframeDataset."""
    if sample.get('modality') != 'RGB' or 'start_index' not in sample:
        return
    if 'frame_dir' not in sample:
        yield sample.get('filename'), read_video
        return
    first = sample['start_index'] + sample.get('offset', 0)
    for number in range(first, first + sample['total_frames']):
        yield os.path.join(sample['frame_dir'], sample['filename_tmpl'].format(number)), image_size
