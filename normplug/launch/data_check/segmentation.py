"""Does each image of a segmentation dataset have its map of labels, and are they the classes'?"""

from __future__ import annotations

from typing import Any

import numpy as np

from .decode import UnreadableError, read_labels
from .folders import Folders, suffixes_in
from .problems import Problems

__all__ = ['check_files', 'check_labels']

_IGNORED = 255  # what mmseg's LoadAnnotations leaves as it is


def check_files(dataset: Any, key: str, with_labels: bool, problems: Problems) -> list[dict]:
    """Return what mmseg would load, as dicts with ``img_path`` and ``seg_map_path``.

    Args:
        dataset: mmseg's ``BaseSegDataset``, not fully initialized.
        key: its config key.
        with_labels: whether the pipeline loads labels.
        problems: missing files go there.
    """
    folder = dataset.data_prefix.get('img_path') or ''
    samples = dataset.load_data_list()
    if not samples:
        what = f'folders without any image that ends in {dataset.img_suffix!r} (img_suffix)'
        advice = f'Set {key}.img_suffix, or the folder {key}.data_prefix.img_path; '
        problems.error(f'{key} {folder}', what, folder, advice + suffixes_in(folder))
    folders = Folders()
    for sample in samples:
        if not folders.has(sample['img_path']):
            advice = f'Put them there, or leave them out of {key}.ann_file'
            problems.error(f'{key} {folder}', 'images that are missing', sample['img_path'], advice)
    if with_labels:
        labels = dataset.data_prefix.get('seg_map_path') or ''
        for sample in samples:
            path = sample.get('seg_map_path')
            if path is None or not folders.has(path):
                advice = (
                    f'Each image needs its map of labels, of the same name and ending in '
                    f'{dataset.seg_map_suffix!r} ({key}.seg_map_suffix): {suffixes_in(labels)}'
                )
                case = path or sample['img_path']
                problems.error(f'{key} {labels}', 'maps of labels that are missing', case, advice)
    return samples


def check_labels(
    sample: dict,
    size: tuple[int, int],
    classes: int,
    ignored: set[int],
    backend: str,
    key: str,
    problems: Problems,
) -> np.ndarray:
    """Check the map of labels of one image.

    Args:
        sample: of :func:`check_files`.
        size: (width, height) of the image.
        classes: number of classes; 0 if unknown.
        ignored: labels that the losses leave out.
        backend: ``imdecode_backend`` of LoadAnnotations.
        key: config key of the dataset.
        problems: what is found goes there.

    Returns:
        The classes that occur.
    """
    path, none = sample['seg_map_path'], np.empty(0, int)
    place = f'{key} seg_map_path'
    try:
        labels = read_labels(path, backend)
    except UnreadableError as error:
        advice = 'Write or copy them again'
        problems.error(place, 'maps of labels that cannot be read', f'{path} {error}', advice)
        return none
    if labels.ndim != 2:
        advice = 'mmseg takes the number of the class at each pixel: convert the colours to numbers'
        if backend != 'pillow':
            advice += "; of a palette PNG, imdecode_backend='pillow' of LoadAnnotations reads them"
        case = f'{path} of shape {labels.shape}'
        problems.error(place, 'maps of labels with colours', case, advice)
        return none
    if labels.shape[::-1] != tuple(size):
        case = f'{path} {labels.shape[1]}x{labels.shape[0]}, image {size[0]}x{size[1]}'
        advice = 'Make both of the same size (labels without interpolation)'
        problems.error(place, 'maps of labels of another size than the image', case, advice)
    found = np.unique(labels).astype(int)
    if found.max(initial=0) > 255 or found.min(initial=0) < 0:
        advice = 'mmseg reads 8 bits: these numbers would become others. Write labels up to 255'
        case = f'{path} with {found[-1]}'
        problems.error(place, 'maps with labels above 255', case, advice)
        return none
    mapped = _as_mmseg_maps(found, sample)
    unknown = found[(mapped >= classes) & ~np.isin(mapped, list(ignored))] if classes else none
    if unknown.size:
        first = int(bool(sample['reduce_zero_label']))
        advice = (
            f'For {classes} classes labels are {first} to {classes - 1 + first}, and {_IGNORED} '
            f'to ignore a pixel: correct the maps, or {key}.metainfo.classes and num_classes'
        )
        case = f'{path} with {", ".join(map(str, unknown[:5]))}'
        problems.error(place, 'maps with labels that are no class', case, advice)
    return mapped[mapped < classes]


def _as_mmseg_maps(labels: np.ndarray, sample: dict) -> np.ndarray:
    """What LoadAnnotations makes of the label numbers."""
    mapped = labels.copy()
    if sample['reduce_zero_label']:
        mapped[mapped == 0] = _IGNORED
        mapped[mapped != _IGNORED] -= 1
    reduced = mapped.copy()
    for old, new in (sample.get('label_map') or {}).items():
        mapped[reduced == old] = new
    return mapped
