"""Is a COCO annotation file whole, and does it fit the classes of the config?

mmdet leaves out what it cannot use (boxes without area or outside the image, annotations of other
images): that is a warning. An error is what makes mmdet stop, or learn something else than meant.
"""

from __future__ import annotations

import gc
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from numbers import Real

from .problems import Problems

__all__ = ['CocoFile', 'read_coco']

_MEND = 'Correct them in the file, or write it again'
_IMAGE_KEYS = {'id', 'file_name', 'width', 'height'}
_ANNOTATION_KEYS = {'id', 'image_id', 'category_id', 'bbox', 'area'}
# Polygons are nine tenths of COCO's time to parse, and their numbers are not looked at.
_POLYGONS = re.compile(rb'\[\[[-+.,0-9\s\[\]]{6,}\]\]')


@dataclass
class CocoFile:
    """What is known of an annotation file once it has been read.

    Attributes:
        key: config key that names the file.
        path: the file.
        images: id → image, of those that are whole.
        categories: of those that are whole.
        annotations: all of the file, unchecked; None where it has none, as for a test set.
        annotated: ids of the images with an annotation, by category id; once they are checked.
        usable: ids of the categories with an annotation that mmdet can use; likewise.
    """

    key: str
    path: str
    images: dict
    categories: list[dict]
    annotations: list | None
    annotated: defaultdict[int, set] = field(default_factory=lambda: defaultdict(set))
    usable: set = field(default_factory=set)

    @property
    def place(self) -> str:
        """Key and path, as messages give them."""
        return f'{self.key} {self.path}'

    def check_classes(self, classes: Sequence[str] | None, metainfo: dict, problems: Problems):
        """Does the file have each class, once? mmdet numbers labels by what it finds here."""
        key = self.key.removesuffix('ann_file') + 'metainfo.classes'
        names = [category['name'] for category in self.categories]
        if 'CLASSES' in metainfo:
            advice = 'mmdet 3 reads metainfo=dict(classes=(...)), in small letters'
            problems.error(key, 'keys that are not read', 'metainfo.CLASSES', advice)
            return
        few = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
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

    def check_annotations(self, with_mask: bool, unique_ids: bool, problems: Problems) -> None:
        """Check each annotation, and note which images have instances of which category.

        Args:
            with_mask: whether masks are needed.
            unique_ids: whether mmdet insists on annotation ids that differ.
            problems: what is found goes there.
        """
        seen: set = set()
        known = {category['id'] for category in self.categories}
        for number, ann in enumerate(self.annotations or ()):
            if not isinstance(ann, dict) or not ann.keys() >= _ANNOTATION_KEYS:
                lacking = _ANNOTATION_KEYS - set(ann if isinstance(ann, dict) else ())
                what = f'annotations without {", ".join(sorted(lacking))}'
                problems.error(self.place, what, f'number {number}', _MEND)
                continue
            image = self.images.get(ann['image_id'])
            if image is None:
                case = f'annotation {ann["id"]} of image_id {ann["image_id"]!r}'
                advice = 'mmdet leaves them out; is the file a part of a larger one?'
                problems.warn(self.place, 'annotations of images not in the file', case, advice)
                continue
            if unique_ids and ann['id'] in seen:
                what = 'annotation ids that are used twice'
                problems.error(self.place, what, f'id {ann["id"]}', 'Number the annotations anew')
            seen.add(ann['id'])
            if ann.get('ignore'):
                continue  # mmdet does not look at the rest
            if ann['category_id'] not in known:
                case = f'category_id {ann["category_id"]} of {_name(ann, image)}'
                what = 'annotations whose category_id is not in categories'
                problems.error(self.place, what, case, _MEND)
                continue
            self.annotated[ann['category_id']].add(ann['image_id'])
            if self._box_is_used(ann, image, problems):
                self.usable.add(ann['category_id'])
                if with_mask and not ann.get('segmentation'):
                    advice = 'The pipeline or metric needs masks: use a file that has them, or '
                    advice += 'set with_mask=False and a model and metric without masks'
                    what = 'annotations without segmentation'
                    problems.error(self.place, what, _name(ann, image), advice)

    def _box_is_used(self, ann: dict, image: dict, problems: Problems) -> bool:
        """Whether mmdet uses the annotation."""
        try:
            x, y, w, h = ann['bbox']
            finite = isfinite(x + y + w + h + ann['area'])
        except (TypeError, ValueError):
            what = 'annotations whose bbox is not four numbers, or whose area is none'
            problems.error(self.place, what, _name(ann, image), _MEND)
            return False
        if not finite:
            what = 'annotations with NaN or infinity in bbox or area'
            problems.error(self.place, what, _name(ann, image), _MEND)
            return False
        kind = None
        if w < 0 or h < 0:
            kind = 'boxes of negative width or height'
        elif w < 1 or h < 1 or ann['area'] <= 0:
            kind = 'boxes of less than a pixel, or of area 0'
        elif x >= image['width'] or y >= image['height'] or x + w <= 0 or y + h <= 0:
            kind = 'boxes outside the image'
        if kind:
            advice = 'mmdet leaves them out; bbox is [left, top, width, height] in pixels'
            problems.warn(self.place, kind, _name(ann, image), advice)
            return False
        beyond = max(-x, -y, x + w - image['width'], y + h - image['height'])
        if beyond > 2:
            advice = 'mmdet uses them; bbox is [left, top, width, height], not two corners'
            what = 'boxes that reach more than 2 pixels beyond the image'
            problems.warn(self.place, what, _name(ann, image), advice)
        return True


def read_coco(path: str, key: str, needs_annotations: bool, problems: Problems) -> CocoFile | None:
    """Read the annotation file at ``path`` and check its structure and its images.

    Args:
        path: a COCO JSON file.
        key: config key that names it.
        needs_annotations: whether a file without annotations is an error.
        problems: what is found goes there.

    Returns:
        None if it cannot be used further.
    """
    place = f'{key} {path}'
    content = _read_json(path, place, problems)
    if content is None:
        return None
    advice = 'A COCO file is {"images": [...], "annotations": [...], "categories": [...]}; '
    advice += 'choose the right file, or convert it'
    needed = ('images', 'categories', *(['annotations'] if needs_annotations else ()))
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
        c for c in lists['categories'] if isinstance(c, dict) and c.keys() >= {'id', 'name'}
    ]
    if len(categories) < len(lists['categories']):
        problems.error(place, 'categories without id or name', 'categories', _MEND)
    if len({category['id'] for category in categories}) < len(categories):
        problems.error(place, 'category ids that are used twice', 'categories', _MEND)
    images = _check_images(lists['images'], place, problems)
    return CocoFile(key, path, images, categories, lists.get('annotations'))


def _read_json(path: str, place: str, problems: Problems):
    with open(path, 'rb') as file:
        content = file.read()
    if not content.strip():
        problems.error(place, 'empty files', path, 'Write or download it again')
        return None
    collects = gc.isenabled()
    gc.disable()  # it would walk over the new objects again and again: half of the time
    try:
        return json.loads(_POLYGONS.sub(b'[[0]]', content).decode())
    except ValueError:  # JSONDecodeError, UnicodeDecodeError
        pass
    finally:
        if collects:
            gc.enable()
    try:
        return json.loads(content.decode())  # for the place of the error
    except ValueError as error:
        advice = 'Write or download it again'
        problems.error(place, 'files that are no complete JSON', str(error), advice)
        return None


def _check_images(entries: list, place: str, problems: Problems) -> dict:
    images: dict = {}
    for number, image in enumerate(entries):
        if not isinstance(image, dict) or not image.keys() >= _IMAGE_KEYS:
            lacking = _IMAGE_KEYS - set(image if isinstance(image, dict) else ())
            what = f'images without {", ".join(sorted(lacking))}'
            problems.error(place, what, f'number {number}', _MEND)
            continue
        sides = (image['width'], image['height'])
        if not all(isinstance(side, Real) and side > 0 for side in sides):
            case = f'{image["file_name"]} ({sides[0]!r}, {sides[1]!r})'
            problems.error(place, 'images whose width or height is no size', case, _MEND)
            continue
        other = images.setdefault(image['id'], image)
        if other['file_name'] != image['file_name']:
            case = f'id {image["id"]} of {other["file_name"]} and {image["file_name"]}'
            advice = 'Their boxes would be mixed up: number the images anew'
            problems.error(place, 'image ids that are used twice', case, advice)
    return images


def _name(ann: dict, image: dict) -> str:
    return f'annotation {ann["id"]} of {image["file_name"]}: bbox {ann["bbox"]}'
