"""Check that the annotations of a COCO file are whole, and that mmdet uses them.

mmdet leaves out what it cannot use (boxes without area or outside the image, annotations of other
images): that is a warning. It is an error if mmdet or pycocotools would stop, or learn or
measure something other than the user meant.
"""

from __future__ import annotations

from math import isfinite

from .coco import CocoFile
from .masks import MEND, MaskCheck, name_of
from .problems import Problems
from .uses import CocoUse

__all__ = ['check_annotations']

_ALWAYS = {'id', 'image_id', 'category_id'}
_BOX = {'bbox', 'area'}


def check_annotations(file: CocoFile, use: CocoUse, problems: Problems) -> None:
    """Check each annotation, and note in ``file`` which images have instances of which category.

    Args:
        file: the file.
        use: who reads it.
        problems: what is found goes there.
    """
    _Check(file, use, problems).run()


class _Check:
    def __init__(self, file: CocoFile, use: CocoUse, problems: Problems) -> None:
        self.file, self.use, self.problems, self.place = file, use, problems, file.place
        self.known = {category['id'] for category in file.categories}
        self.wanted = {
            category['id']
            for category in file.categories
            if use.classes is None or category['name'] in use.classes
        }
        self.masks = MaskCheck(use, file.place, file.polygons, problems)
        self.expected = _ALWAYS | _BOX | ({'iscrowd'} if use.scores else set())
        self.seen: set = set()

    def run(self) -> None:
        for number, ann in enumerate(self.file.annotations or ()):
            try:
                self._check(ann, number)
            except TypeError:  # a list or dict as id
                what = 'annotations whose id, image_id or category_id is neither number nor text'
                self.problems.error(self.place, what, f'number {number}', MEND)
        self.masks.finish()

    def _check(self, ann: dict, number: int) -> None:
        if not isinstance(ann, dict) or not ann.keys() >= self.expected:
            lacking = self._lacking(ann)
            if lacking:
                what = f'annotations without {", ".join(sorted(lacking))}'
                self.problems.error(self.place, what, f'number {number}', MEND)
                return
        image = self.file.images.get(ann['image_id'])
        if image is None:
            self._of_no_image(ann)
            return
        if self.use.unique_ids or self.use.scores:
            if ann['id'] in self.seen:
                what = 'annotation ids that are used twice'
                advice = 'Number the annotations anew'
                self.problems.error(self.place, what, f'id {ann["id"]}', advice)
            self.seen.add(ann['id'])
        if ann.get('ignore') and not self.use.scores:
            return  # mmdet does not look at the rest
        if ann['category_id'] not in self.known:
            case = f'category_id {ann["category_id"]} of {name_of(ann, image)}'
            what = 'annotations whose category_id is not in categories'
            self.problems.error(self.place, what, case, MEND)
            return
        wanted = ann['category_id'] in self.wanted
        scored = self.use.scores and wanted
        if scored and ann['id'] == 0:
            advice = 'pycocotools counts every detection of it as false: number them from 1'
            self.problems.error(self.place, 'annotations of id 0', name_of(ann, image), advice)
        if wanted and ann.get('iscrowd', 0) not in (0, 1, None):
            case = f'{name_of(ann, image)}, iscrowd {ann["iscrowd"]!r}'
            self.problems.error(self.place, 'annotations whose iscrowd is not 0 or 1', case, MEND)
        self.file.annotated[ann['category_id']].add(ann['image_id'])
        used = self._box_is_used(ann, image)
        if used is None:
            return
        if used and not ann.get('iscrowd'):
            self.file.usable.add(ann['category_id'])
        loaded = self.use.loads_masks and used and wanted and not ann.get('ignore')
        scored = self.use.scores_masks and scored
        if loaded or scored:
            self._check_mask(ann, image, loaded, scored)

    def _check_mask(self, ann: dict, image: dict, loaded: bool, scored: bool) -> None:
        if ann.get('segmentation'):
            self.masks.check(ann, image, loaded, scored)
            return
        advice = 'The pipeline or metric needs masks: use a file that has them, or '
        advice += 'set with_mask=False and a model and metric without masks'
        self.problems.error(
            self.place, 'annotations without segmentation', name_of(ann, image), advice
        )

    def _lacking(self, ann: dict) -> set[str]:
        """Keys that somebody needs of an annotation that lacks some."""
        if not isinstance(ann, dict):
            return self.expected
        needed = set(_ALWAYS)
        if self.use.scores or not ann.get('ignore'):
            needed |= _BOX
        if self.use.scores and ann.get('category_id') in self.wanted:
            needed.add('iscrowd')  # pycocotools reads it of the classes that it compares
        return needed - ann.keys()

    def _of_no_image(self, ann: dict) -> None:
        case = f'annotation {ann["id"]} of image_id {ann["image_id"]!r}'
        kinds = [kind for kind in (int, str) if kind is not type(ann['image_id'])]
        for kind in kinds:
            try:
                other = kind(ann['image_id'])
            except ValueError:
                continue
            if other in self.file.images:
                what = 'annotations whose image_id is of another type than the id of its image'
                self.problems.error(self.place, what, f'{case}, image {other!r}', MEND)
                return
        advice = 'mmdet leaves them out; is the file a part of a larger one?'
        self.problems.warn(self.place, 'annotations of images not in the file', case, advice)

    def _box_is_used(self, ann: dict, image: dict) -> bool | None:
        """Whether mmdet uses the annotation; None if it has no box."""
        try:
            x, y, w, h = ann['bbox']
            finite = isfinite(x + y + w + h + ann['area'])
        except (TypeError, ValueError):
            what = 'annotations whose bbox is not four numbers, or whose area is none'
            self.problems.error(self.place, what, name_of(ann, image), MEND)
            return None
        if not finite:
            what = 'annotations with NaN or infinity in bbox or area'
            self.problems.error(self.place, what, name_of(ann, image), MEND)
            return None
        kind = None
        if w < 0 or h < 0:
            kind = 'boxes of negative width or height'
        elif w < 1 or h < 1 or ann['area'] <= 0:
            kind = 'boxes of less than a pixel, or of area 0'
        elif x >= image['width'] or y >= image['height'] or x + w <= 0 or y + h <= 0:
            kind = 'boxes outside the image'
        if kind:
            advice = 'mmdet leaves them out; bbox is [left, top, width, height] in pixels'
            self.problems.warn(self.place, kind, name_of(ann, image), advice)
            return False
        beyond = max(-x, -y, x + w - image['width'], y + h - image['height'])
        if beyond > 2:
            advice = 'mmdet uses them; bbox is [left, top, width, height], not two corners'
            what = 'boxes that reach more than 2 pixels beyond the image'
            self.problems.warn(self.place, what, name_of(ann, image), advice)
        return True
