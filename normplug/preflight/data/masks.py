"""Check that mmdet can load and pycocotools can compare the masks of COCO annotations.

mmdet leaves out polygons without an area, and some run lengths: that is a warning. pycocotools
checks little: it stops with an error that names nothing, measures another mask than was drawn,
or never ends. Those are errors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from .problems import Problems
from .uses import CocoUse

__all__ = ['MEND', 'PLACEHOLDER', 'MaskCheck', 'name_of', 'run_length_totals']

# Stands in a parsed file for polygons that were not parsed, with their number.
PLACEHOLDER = 'unparsed polygons'
MEND = 'Correct them in the file, or write it again'
_BATCH = 10_000
# pycocotools walks along each edge in fifths of a pixel, and takes memory for each step.
_FAR = 1e6


class MaskCheck:
    """Checks the segmentations of one file.

    Args:
        use: who reads the file.
        place: config key and file, for messages.
        polygons: bytes of the polygons that were not parsed.
        problems: what is found goes there.
    """

    def __init__(
        self, use: CocoUse, place: str, polygons: Sequence[bytes], problems: Problems
    ) -> None:
        self.use = use
        self.place = place
        self.polygons = polygons
        self.problems = problems
        self._compressed: list[tuple[str, int, str]] = []

    def check(self, ann: dict, image: dict, loaded: bool, scored: bool) -> None:
        """Check one mask.

        Args:
            ann: an annotation with a segmentation and a good bbox.
            image: its image.
            loaded: whether a pipeline loads it.
            scored: whether pycocotools compares it.
        """
        mask = ann['segmentation']
        if isinstance(mask, dict) and PLACEHOLDER in mask:
            text = self.polygons[mask[PLACEHOLDER]]
            if _is_plain(text, ann['bbox']):
                return
            mask = json.loads(text)
        name = name_of(ann, image)
        if isinstance(mask, list):
            self._check_polygons(mask, ann['bbox'], name, loaded, scored)
        elif isinstance(mask, dict):
            self._check_run_lengths(mask, image, ann, name, loaded, scored)
        else:
            self._error('masks that are neither polygons nor run lengths', name)

    def finish(self) -> None:
        """Check what is cheap only for many masks at once; call it after the last one."""
        for start in range(0, len(self._compressed), _BATCH):
            batch = self._compressed[start : start + _BATCH]
            totals = run_length_totals([counts for _, _, counts in batch])
            for (name, pixels, _), total in zip(batch, totals, strict=True):
                if total != pixels:
                    self._error('run lengths that do not add up to the image', name)
        self._compressed = []

    def _check_polygons(
        self, mask: list, bbox: list, name: str, loaded: bool, scored: bool
    ) -> None:
        if not all(isinstance(polygon, list) for polygon in mask):
            self._error('polygons that are not a list of lists [[x, y, x, y, ...]]', name)
            return
        short = [len(polygon) < 6 or len(polygon) % 2 == 1 for polygon in mask]
        what = 'polygons of less than three points, or of an odd number of coordinates'
        # Later polygons of one or two points are an area of 0 to pycocotools.
        odd = any(len(polygon) % 2 for polygon in mask)
        if scored and (odd or len(mask[0]) < 6):
            self._error(what, name)
            return
        if loaded and any(short):
            advice = 'mmdet leaves them out, and an annotation that has no other'
            self.problems.warn(self.place, what, name, advice)
        kept = [polygon for polygon, bad in zip(mask, short, strict=True) if not bad]
        numbers = [number for polygon in kept for number in polygon]
        if not all(isinstance(n, Real) and isfinite(n) and abs(n) < _FAR for n in numbers):
            self._error('polygons with coordinates that are not a place in an image', name)
        elif numbers and not _meets(bbox, kept):
            advice = 'mmdet uses them as they are: are they in pixels, x before y?'
            self.problems.warn(self.place, 'masks that lie beside their bbox', name, advice)

    def _check_run_lengths(
        self, mask: dict, image: dict, ann: dict, name: str, loaded: bool, scored: bool
    ) -> None:
        counts, size = mask.get('counts'), mask.get('size')
        if counts is None or size is None or not isinstance(counts, (list, str)):
            what = 'masks without size and counts, or polygons'
            if scored:
                self._error(what, name)
            elif loaded:
                self.problems.warn(self.place, what, name, 'mmdet leaves their annotations out')
            return
        if loaded and self.use.polygons_only and not scored:
            if not ann.get('iscrowd'):
                advice = 'mmdet leaves their annotations out; set poly2mask=True'
                what = 'run lengths, where LoadAnnotations has poly2mask=False'
                self.problems.warn(self.place, what, name, advice)
            return
        width, height = image['width'], image['height']
        if size != [height, width]:
            what = 'run lengths of another size [height, width] than their image'
            self._error(what, f'{name}, size {size}, image {[height, width]}')
        elif isinstance(counts, str):
            self._compressed.append((name, width * height, counts))
        elif not all(type(c) is int and c >= 0 for c in counts) or sum(counts) != width * height:
            self._error('run lengths that do not add up to the image', name)

    def _error(self, what: str, name: str) -> None:
        self.problems.error(self.place, what, name, MEND)


def name_of(ann: dict, image: dict) -> str:
    """Return what messages call an annotation."""
    return f'annotation {ann["id"]} of {image["file_name"]}: bbox {ann["bbox"]}'


def _is_plain(text: bytes, bbox: Sequence[float]) -> bool:
    """Whether polygons are surely good, told without parsing all of their numbers."""
    commas = [part.count(b',') for part in text.split(b']')[:-2]]
    commas[0] += 1  # the others begin with one
    if any(number < 6 or number % 2 for number in commas):
        return False
    first, second = text.split(b',', 2)[:2]
    try:
        x, y = float(first.lstrip(b'[ \t\r\n')), float(second)
    except ValueError:
        return False
    left, top, width, height = bbox
    return left - 2 <= x <= left + width + 2 and top - 2 <= y <= top + height + 2


def _meets(bbox: Sequence[float], polygons: list[list[float]]) -> bool:
    """Whether the polygons' extent has a pixel in common with the bbox."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    left, top, width, height = bbox
    return min(xs) < left + width and max(xs) > left and min(ys) < top + height and max(ys) > top


def run_length_totals(strings: Sequence[Any]) -> np.ndarray:
    """Number of pixels of COCO's compressed run lengths; -1 for a string that is none.

    Their format (maskApi.c of pycocotools): characters from '0' hold 5 bits of a number, the
    lowest first, 32 that more follow, and the last one's 16 the sign; from the fourth number on,
    each is the difference to the one two before.

    Args:
        strings: N strings.

    Returns:
        (N,), int64.
    """
    data = [string.encode('ascii', 'replace') for string in strings]
    lengths = np.array([len(string) for string in data])
    totals = np.full(len(data), -1, np.int64)
    codes = np.frombuffer(b''.join(data), np.uint8).astype(np.int64) - 48
    owners = np.repeat(np.arange(len(data)), lengths)
    ends = np.cumsum(lengths)
    bad = lengths == 0
    bad[np.unique(owners[(codes < 0) | (codes > 63)])] = True
    more = (codes & 32) != 0
    whole = lengths > 0
    bad[whole] |= more[ends[whole] - 1]  # its last number goes on
    good = ~bad[owners]
    codes, more, owners = codes[good], more[good], owners[good]
    if not codes.size:
        return totals
    starts = np.r_[0, np.flatnonzero(~more)[:-1] + 1]
    digit = np.arange(len(codes)) - np.repeat(starts, np.diff(np.r_[starts, len(codes)]))
    if digit.max() > 8:  # numbers above 2**45
        bad[np.unique(owners[digit > 8])] = True
        digit = np.minimum(digit, 8)
    last = ~more
    values = np.add.reduceat((codes & 31) << (5 * digit), starts)
    negative = (codes[last] & 16) != 0
    values -= negative * (np.int64(1) << (5 * (digit[last] + 1)))
    # Each difference counts in all later numbers of its parity.
    of = owners[starts]
    begin = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    sizes = np.diff(np.r_[begin, len(of)])
    position = np.arange(len(of)) - np.repeat(begin, sizes)
    left = np.repeat(sizes, sizes) - position
    weight = np.where(position == 0, 1, (left + 1) // 2)
    sums = np.add.reduceat(values * weight, begin)
    totals[of[begin]] = sums
    totals[bad] = -1
    return totals
