"""Who reads a COCO annotation file, and for what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ['CocoUse', 'merge_uses']


@dataclass
class CocoUse:
    """What a dataset or a metric asks of an annotation file.

    Attributes:
        key: config key that names the file.
        path: the file.
        trains: whether a model is to learn from the annotations.
        scores: whether pycocotools compares detections with them.
        loads_masks: whether a pipeline loads masks.
        scores_masks: whether pycocotools compares masks.
        polygons_only: whether that pipeline leaves other masks than polygons out.
        unique_ids: whether mmdet insists on annotation ids that differ.
        classes: names of the classes asked for; None for all categories.
    """

    key: str
    path: str
    trains: bool = False
    scores: bool = False
    loads_masks: bool = False
    scores_masks: bool = False
    polygons_only: bool = False
    unique_ids: bool = False
    classes: frozenset[str] | None = None

    @property
    def masks(self) -> bool:
        """Whether anybody reads masks."""
        return self.loads_masks or self.scores_masks


_FLAGS = ('trains', 'scores', 'loads_masks', 'scores_masks', 'polygons_only', 'unique_ids')


def merge_uses(uses: Iterable[CocoUse]) -> dict[str, CocoUse]:
    """Return one use for each path: all that is asked of the file, under the first key."""
    merged: dict[str, CocoUse] = {}
    for use in uses:
        if use.path not in merged:
            merged[use.path] = replace(use)
            continue
        first = merged[use.path]
        for flag in _FLAGS:
            setattr(first, flag, getattr(first, flag) or getattr(use, flag))
        both = first.classes is not None and use.classes is not None
        first.classes = first.classes | use.classes if both else None
    return merged
