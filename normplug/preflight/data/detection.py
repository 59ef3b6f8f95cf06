"""Check that the annotation files, images and metrics of a detection phase belong together."""

from __future__ import annotations

import os
from typing import Any

from .annotations import check_annotations
from .coco import CocoFile, read_coco
from .dataset_config import chosen_by_indices
from .folders import Folders
from .problems import Problems
from .uses import CocoUse, merge_uses

__all__ = ['check_images', 'read_files', 'same_images', 'used_images']


def read_files(uses: list[CocoUse], problems: Problems) -> dict[str, CocoFile]:
    """Read and check each file once, for all who use it; return those that are usable, by path."""
    files = {}
    for path, use in merge_uses(uses).items():
        file = read_coco(use, problems)
        if file is not None:
            check_annotations(file, use, problems)
            files[path] = file
    return files


def used_images(dataset: Any, file: CocoFile, trains: bool, problems: Problems) -> list:
    """Return the images of ``file`` that mmdet would load.

    Args:
        dataset: mmdet's ``CocoDataset``, not fully initialized.
        file: its annotation file.
        trains: whether a model is to learn from its annotations.
        problems: told if nothing would be left.
    """
    classes = dataset.metainfo.get('classes') or ()
    wanted = {category['id'] for category in file.categories if category['name'] in classes}
    if trains and wanted and not wanted & file.usable:
        advice = 'There is nothing to train on: choose another file or other metainfo.classes'
        what = 'files without any annotation that mmdet can use'
        problems.error(file.place, what, os.path.basename(file.path), advice)
    images = list(file.images.values())
    chosen = dataset.filter_cfg or {}
    if dataset.test_mode:
        chosen = {}
    if chosen.get('filter_empty_gt'):
        annotated = set().union(*(file.annotated.get(category, ()) for category in wanted))
        images = [image for image in images if image['id'] in annotated]
    smallest = chosen.get('min_size', 0)
    images = [image for image in images if min(image['width'], image['height']) >= smallest]
    return chosen_by_indices(images, dataset)


def check_images(images: list[dict], dataset: Any, key: str, problems: Problems) -> None:
    """Check that the files of ``images`` exist."""
    folders = Folders()
    prefix = dataset.data_prefix['img']
    for image in images:
        path = os.path.join(prefix, image['file_name'])
        if not folders.has(path):
            advice = f'Put them there, or set {key}.data_prefix.img'
            problems.error(
                f'{key}.data_prefix.img {prefix}', 'images that are missing', path, advice
            )


def same_images(file: CocoFile, metric: CocoFile, problems: Problems) -> None:
    """Check that the metric's file has all images of the dataset, or COCO's metric stops."""
    for image in file.images.values():
        if image['id'] not in metric.images:
            advice = f'Set it to {file.path}, as for the dataset'
            what = 'images of the dataset that the file of the metric does not have'
            problems.error(metric.place, what, image['file_name'], advice)
