"""Check that a COCO annotation file is whole and fits the classes of the config."""

from __future__ import annotations

import gc
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from .masks import MEND, PLACEHOLDER
from .problems import Problems
from .uses import CocoUse

__all__ = ['CocoFile', 'read_coco']

_IMAGE_KEYS = {'id', 'file_name', 'width', 'height'}
# Lists of lists of plain numbers. They are nine tenths of COCO's time to parse, and few are needed.
_NUMBERS = rb'\[[-+.,0-9\s]*\]'
_POLYGONS = re.compile(
    rb'"segmentation"\s*:\s*(\[\s*' + _NUMBERS + rb'(?:\s*,\s*' + _NUMBERS + rb')*\s*\])'
)


@dataclass
class CocoFile:
    """What is known of an annotation file once it has been read.

    Attributes:
        key: config key that names the file.
        path: the file.
        images: id → image, of those that are whole.
        categories: of those that are whole.
        annotations: all of the file, unchecked; None where it has none, as for a test set.
        polygons: bytes of those that were not parsed, to which ``masks.PLACEHOLDER`` points.
        annotated: ids of the images with an annotation, by category id; once they are checked.
        usable: ids of the categories with an annotation that mmdet can learn from; likewise.
    """

    key: str
    path: str
    images: dict
    categories: list[dict]
    annotations: list | None
    polygons: Sequence[bytes] = ()
    annotated: defaultdict[int, set] = field(default_factory=lambda: defaultdict(set))
    usable: set = field(default_factory=set)

    @property
    def place(self) -> str:
        """Key and path, as messages give them."""
        return f'{self.key} {self.path}'

    def check_classes(self, classes: Sequence[str] | None, metainfo: dict, problems: Problems):
        """Check that the file has each class once: mmdet numbers labels by what it finds here."""
        key = self.key.removesuffix('ann_file') + 'metainfo.classes'
        names = [category['name'] for category in self.categories]
        if 'CLASSES' in metainfo:
            advice = 'mmdet 3 reads metainfo=dict(classes=(...)), in small letters'
            problems.error(key, 'keys that are not read', 'metainfo.CLASSES', advice)
            return
        few = ', '.join(map(str, names[:5])) + (', ...' if len(names) > 5 else '')
        for name in classes or ():
            if names.count(name) != 1:
                what = 'classes that are not among' if name not in names else 'classes twice among'
                advice = (
                    f'The file has {few}; name those of them that the model shall find, e.g. '
                    f"metainfo=dict(classes=('{names[0] if names else 'cat'}',))"
                )
                problems.error(key, f'{what} the categories of {self.path}', name, advice)
        common = [name for name in names if name in set(classes or ())]
        if sorted(common) == sorted(classes or ()) and common != list(classes or ()):
            advice = f"Give metainfo.classes in the file's order: {', '.join(common[:5])}, ..."
            what = "classes in another order than the file's, by which mmdet numbers the labels"
            problems.warn(key, what, ', '.join(list(classes)[:5]), advice)


def read_coco(use: CocoUse, problems: Problems) -> CocoFile | None:
    """Read the annotation file of ``use`` and check its structure and its images.

    Args:
        use: who reads it; where they train or score, a file without annotations is an error.
        problems: what is found goes there.

    Returns:
        None if it cannot be used further.
    """
    path, place = use.path, f'{use.key} {use.path}'
    content, polygons = _read_json(path, place, use.masks, problems)
    if content is None:
        return None
    advice = 'A COCO file is {"images": [...], "annotations": [...], "categories": [...]}; '
    advice += 'choose the right file, or convert it'
    needed = ('images', 'categories', *(['annotations'] if use.trains or use.scores else ()))
    lists = content if isinstance(content, dict) else {}
    for name in needed:
        if not isinstance(lists.get(name), list):
            problems.error(place, 'keys that the file lacks', name, advice)
    if any(not isinstance(lists.get(name), list) for name in needed):
        return None
    if not lists['images']:
        problems.error(place, 'empty lists', 'images', 'Choose a file with images')
        return None
    categories = [
        c
        for c in lists['categories']
        if isinstance(c, dict) and isinstance(c.get('id'), (int, float, str)) and 'name' in c
    ]
    if len(categories) < len(lists['categories']):
        problems.error(place, 'categories without id or name', 'categories', MEND)
    if len({str(category['id']) for category in categories}) < len(categories):
        problems.error(place, 'category ids that are used twice', 'categories', MEND)
    images = _check_images(lists['images'], place, problems)
    return CocoFile(use.key, path, images, categories, lists.get('annotations'), polygons)


def _read_json(
    path: str, place: str, masks: bool, problems: Problems
) -> tuple[Any, Sequence[bytes]]:
    """Return the content, None if there is none, and the polygons that were not parsed."""
    with open(path, 'rb') as file:
        content = file.read()
    if not content.strip():
        problems.error(place, 'empty files', path, 'Write or download it again')
        return None, ()
    polygons: list[bytes] = []

    def put_aside(match: re.Match) -> bytes:
        polygons.append(match[1])
        return b'"segmentation":{"%b":%d}' % (PLACEHOLDER.encode(), len(polygons) - 1)

    collects = gc.isenabled()
    gc.disable()  # it would walk over the new objects again and again: half of the time
    try:
        shorter = _POLYGONS.sub(put_aside if masks else b'"segmentation":[[0]]', content)
        return json.loads(shorter.decode()), polygons
    except ValueError:  # JSONDecodeError, UnicodeDecodeError
        pass
    finally:
        if collects:
            gc.enable()
    try:
        return json.loads(content.decode()), ()  # for the place of the error
    except ValueError as error:
        advice = 'Write or download it again'
        problems.error(place, 'files that are not complete JSON', str(error), advice)
        return None, ()


def _check_images(entries: list, place: str, problems: Problems) -> dict:
    images: dict = {}
    for number, image in enumerate(entries):
        if not isinstance(image, dict) or not image.keys() >= _IMAGE_KEYS:
            lacking = _IMAGE_KEYS - set(image if isinstance(image, dict) else ())
            what = f'images without {", ".join(sorted(lacking))}'
            problems.error(place, what, f'number {number}', MEND)
            continue
        if not isinstance(image['id'], (int, float, str)) or not isinstance(
            image['file_name'], str
        ):
            what = 'images whose id is neither number nor text, or whose file_name is not text'
            problems.error(place, what, f'number {number}', MEND)
            continue
        sides = (image['width'], image['height'])
        if not all(isinstance(side, Real) and side > 0 for side in sides):
            case = f'{image["file_name"]} ({sides[0]!r}, {sides[1]!r})'
            problems.error(place, 'images whose width or height is not a size', case, MEND)
            continue
        other = images.setdefault(image['id'], image)
        if other['file_name'] != image['file_name']:
            case = f'id {image["id"]} of {other["file_name"]} and {image["file_name"]}'
            advice = 'Their boxes would be mixed up: number the images anew'
            problems.error(place, 'image ids that are used twice', case, advice)
    return images
