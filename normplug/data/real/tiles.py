"""Large pictures cut into tiles, and their objects in COCO's detection format."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ['Tile', 'box_annotation', 'starts', 'write_split']

# Of an object's area; what shows less of it is a crowd, which does not count.
VISIBLE = 0.5


@dataclass
class Tile:
    """A part of a picture.

    Attributes:
        name: of its file, without ending.
        image: (H, W, 3) uint8, RGB.
        annotations: in COCO's words, without `id` and `image_id`.
    """

    name: str
    image: np.ndarray
    annotations: list[dict] = field(default_factory=list)


def starts(length: int, tile: int) -> list[int]:
    """Where tiles of ``tile`` pixels begin on a side of ``length``: evenly, from end to end.

    As few as cover the side; neighbours overlap where ``tile`` does not divide it. A side that is
    shorter than a tile has one, which is as short.
    """
    count = math.ceil(length / tile)
    if count == 1:
        return [0]
    return [round(k * (length - tile) / (count - 1)) for k in range(count)]


def windows(height: int, width: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """The rows and columns of each tile of a picture."""
    for top in starts(height, tile):
        for left in starts(width, tile):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def box_annotation(
    corners: Sequence[float], rows: slice, columns: slice, category: int
) -> dict | None:
    """The part of a box [left, top, right, bottom] that a tile shows; None if it shows nothing."""
    left, top, right, bottom = corners
    x0, x1 = max(left, columns.start), min(right, columns.stop)
    y0, y1 = max(top, rows.start), min(bottom, rows.stop)
    if x0 >= x1 or y0 >= y1:
        return None
    area = (x1 - x0) * (y1 - y0)
    x, y = x0 - columns.start, y0 - rows.start
    return {
        'category_id': category,
        'bbox': [x, y, x1 - x0, y1 - y0],
        'area': area,
        'iscrowd': int(area < VISIBLE * (right - left) * (bottom - top)),
        'segmentation': [[x, y, x + x1 - x0, y, x + x1 - x0, y + y1 - y0, x, y + y1 - y0]],
    }


def write_split(
    folder: Path, split: str, tiles: Sequence[Tile], classes: Sequence[str], source: str
) -> None:
    """Write `<split>/<name>.png` and `annotations/instances_<split>.json`.

    Category ids count ``classes`` from 1.
    """
    (folder / split).mkdir(parents=True)
    (folder / 'annotations').mkdir(exist_ok=True)
    images, annotations = [], []
    for image_id, tile in enumerate(tiles, start=1):
        name = f'{tile.name}.png'
        Image.fromarray(tile.image).save(folder / split / name)
        height, width = tile.image.shape[:2]
        images.append({'id': image_id, 'file_name': name, 'height': height, 'width': width})
        for annotation in tile.annotations:
            number = len(annotations) + 1
            annotations.append({'id': number, 'image_id': image_id, **annotation})
    content = {
        'info': {'description': source},
        'images': images,
        'annotations': annotations,
        'categories': [{'id': k, 'name': name} for k, name in enumerate(classes, start=1)],
    }
    path = folder / 'annotations' / f'instances_{split}.json'
    path.write_text(json.dumps(content), encoding='utf-8')
