"""Trees in aerial photographs, from the package of DeepForest, as detection."""

import io
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from .download import Package
from .tiles import Tile, box_annotation, windows, write_split

__all__ = ['PACKAGE', 'write_trees']

PACKAGE = Package(
    'pypi',
    'deepforest',
    '2.1.0',
    'deepforest-2.1.0-py3-none-any.whl',
    '8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54',
    'MIT; it says nothing about the photographs',
)
# Two photographs of one forest that do not touch: 574 trees, and 279.
_PHOTOS = {
    'train': '2019_YELL_2_528000_4978000_image_crop2',
    'val': '2019_YELL_2_541000_4977000_image_crop',
}


def write_trees(folder: Path, package: Path, tile: int) -> None:
    """Write COCO's form of the trees: tiles of one photograph to train, of another to validate."""
    with zipfile.ZipFile(package) as archive:
        for split, name in _PHOTOS.items():
            photo = Image.open(io.BytesIO(archive.read(f'deepforest/data/{name}.png')))
            words = archive.read(f'deepforest/data/{name}.xml')
            tiles = cut(np.asarray(photo.convert('RGB')), boxes(words), tile)
            write_split(folder, split, tiles, ['tree'], f'{PACKAGE}, {name}')


def boxes(words: bytes) -> list[list[int]]:
    """The boxes [left, top, right, bottom] of a file of Pascal VOC, of pixels 0 to width."""
    found = []
    for element in ElementTree.fromstring(words).iter('bndbox'):
        corners = {side.tag: int(side.text) for side in element}
        # Pascal VOC counts pixels from 1, and a box holds both of its corners.
        found.append([corners['xmin'] - 1, corners['ymin'] - 1, corners['xmax'], corners['ymax']])
    return found


def cut(photo: np.ndarray, trees: list[list[int]], tile: int) -> list[Tile]:
    """The tiles of a (H, W, 3) photograph on which a tree can be seen."""
    tiles = []
    for rows, columns in windows(*photo.shape[:2], tile):
        parts = (box_annotation(tree, rows, columns, category=1) for tree in trees)
        annotations = [part for part in parts if part]
        if any(not part['iscrowd'] for part in annotations):
            name = f'{rows.start:04d}_{columns.start:04d}'
            tiles.append(Tile(name, photo[rows, columns], annotations))
    return tiles
