"""COCO's detection format: one folder of JPEGs and one `instances_*.json` for each split."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.ndimage import label as components

from .scans import CLASSES
from .scene import Scene, SceneMaker

__all__ = ['box', 'outline', 'segmentation', 'write_coco']

INFO = {
    'description': "scikit-learn's handwritten digits on its two sample photographs",
    'version': '1.0',
    'year': 2024,
    'contributor': 'normplug',
    'date_created': '2024-01-01',
}
# As scikit-learn states for both photographs.
LICENSES = [
    {'id': 1, 'name': 'Attribution License', 'url': 'https://creativecommons.org/licenses/by/2.0/'}
]


def write_coco(folder: Path, maker: SceneMaker, counts: Mapping[str, int]) -> None:
    """Write `annotations/instances_<split>.json` and `<split>/<image id, 12 digits>.jpg`.

    Category ids are 1 to 10 for the digits 0 to 9. Beside COCO's own keys an annotation has
    `scan_id`, the index of the digit in scikit-learn's `load_digits`.
    """
    (folder / 'annotations').mkdir()
    categories = [
        {'id': k, 'name': name, 'supercategory': 'digit'} for k, name in enumerate(CLASSES, start=1)
    ]
    for split, count in counts.items():
        (folder / split).mkdir()
        images, annotations = [], []
        for image_id in range(1, count + 1):
            scene = maker.scene(split, image_id - 1)
            name = f'{image_id:012d}.jpg'
            Image.fromarray(scene.image).save(folder / split / name, quality=95)
            height, width = scene.unsure.shape
            images.append(
                {'id': image_id, 'file_name': name, 'height': height, 'width': width, 'license': 1}
            )
            annotations += _annotations(scene, image_id, first_id=len(annotations) + 1)
        content = {
            'info': INFO,
            'licenses': LICENSES,
            'images': images,
            'annotations': annotations,
            'categories': categories,
        }
        path = folder / 'annotations' / f'instances_{split}.json'
        path.write_text(json.dumps(content), encoding='utf-8')


def box(mask: np.ndarray) -> list[int]:
    """The bounding box [x, y, width, height] in pixels of a (H, W) bool mask, not empty."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x, y = int(xs[0]), int(ys[0])
    return [x, y, int(xs[-1]) + 1 - x, int(ys[-1]) + 1 - y]


def segmentation(mask: np.ndarray, compress: bool) -> list[list[int]] | dict:
    """A (H, W) bool mask in COCO's words: polygons, or run lengths if it has holes.

    The polygons, one for each 4-connected part, follow the pixels' edges, so decoding them gives
    back the mask exactly. A polygon cannot have a hole; such a mask becomes run lengths,
    compressed (a string) or not (a list), both of which COCO's format allows.
    """
    x, y, w, h = box(mask)
    parts, n_parts = components(mask[y : y + h, x : x + w])
    loops = [outline(parts == k) for k in range(1, n_parts + 1)]
    if all(len(part) == 1 for part in loops):
        return [np.add(part[0], (x, y)).ravel().tolist() for part in loops]
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    if compress:
        return {'size': rle['size'], 'counts': rle['counts'].decode('ascii')}
    return {'size': rle['size'], 'counts': _run_lengths(mask)}


def outline(part: np.ndarray) -> list[list[tuple[int, int]]]:
    """The closed outlines (x, y) of a (H, W) bool mask along its pixels' edges, holes included.

    Only corners are listed. Where two pixels touch at a corner only, the outline stays on its own
    pixel, so that a 4-connected part has one outline, and one more for each 8-connected hole.
    """
    padded = np.pad(part, 1)
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Directed clockwise (y points down) around each pixel; an edge between two pixels is dropped.
    sides = (
        ((-1, 0), (0, 0), (1, 0)),  # above the pixel: from its top left corner to the right
        ((0, 1), (1, 0), (0, 1)),  # right of it: from its top right corner down
        ((1, 0), (1, 1), (-1, 0)),  # below it: from its bottom right corner to the left
        ((0, -1), (0, 1), (0, -1)),  # left of it: from its bottom left corner up
    )
    for (dy, dx), (x0, y0), step in sides:
        neighbour = np.roll(padded, (-dy, -dx), (0, 1))
        ys, xs = np.nonzero(padded & ~neighbour)
        for y, x in zip((ys - 1).tolist(), (xs - 1).tolist(), strict=True):
            edges.setdefault((x + x0, y + y0), []).append(step)

    loops = []
    while edges:
        point = next(iter(edges))
        corners, last = [], None
        while point in edges:
            steps = edges[point]
            # At a crossing turn right, which stays on this pixel (see above).
            right = None if last is None else (-last[1], last[0])
            step = steps.pop(steps.index(right) if right in steps else 0)
            if not steps:
                del edges[point]
            if step != last:
                corners.append(point)
            point, last = (point[0] + step[0], point[1] + step[1]), step
        loops.append(corners)
    return loops


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    annotations = []
    objects = zip(scene.labels.tolist(), scene.scans.tolist(), scene.masks, strict=True)
    for annotation_id, (label, scan, mask) in enumerate(objects, start=first_id):
        annotations.append(
            {
                'id': annotation_id,
                'image_id': image_id,
                'category_id': label + 1,
                'bbox': box(mask),
                'area': int(mask.sum()),
                'iscrowd': 0,
                'segmentation': segmentation(mask, compress=annotation_id % 2 == 0),
                'scan_id': scan,
            }
        )
    return annotations


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs, column by column, the first of them background (possibly 0)."""
    column_major = mask.ravel(order='F')
    changes = np.flatnonzero(np.diff(column_major, prepend=False))
    return np.diff(changes, prepend=0, append=len(column_major)).tolist()
