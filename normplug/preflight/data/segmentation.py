"""Check that each image of a segmentation dataset has a map of labels, of known classes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..config_types import dicts_in
from .dataset_config import chosen_by_indices
from .decode import UnreadableError, read_labels
from .folders import IMAGE_SUFFIXES, Folders, suffixes_in
from .problems import Problems

__all__ = ['check_files', 'check_labels', 'check_occurrence', 'ignored_labels', 'number_of_labels']

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
    samples = chosen_by_indices(dataset.load_data_list(), dataset)
    if not samples:
        what = f'folders without any image that ends in {dataset.img_suffix!r} (img_suffix)'
        advice = f'Set {key}.img_suffix, or the folder {key}.data_prefix.img_path; '
        problems.error(f'{key} {folder}', what, folder, advice + suffixes_in(folder))
    folders = Folders()
    for sample in samples:
        if not folders.has(sample['img_path']):
            advice = f'Put them there, or leave them out of {key}.ann_file'
            problems.error(f'{key} {folder}', 'images that are missing', sample['img_path'], advice)
    if not os.path.isfile(dataset.ann_file):
        _check_other_suffixes(dataset, samples, folders, key, problems)
    if with_labels:
        labels = dataset.data_prefix.get('seg_map_path') or ''
        paths = [(sample, sample.get('seg_map_path')) for sample in samples]
        missing = [path or s['img_path'] for s, path in paths if not (path and folders.has(path))]
        advice = (
            'Each image needs its map of labels, of the same name and ending in '
            f'{dataset.seg_map_suffix!r} ({key}.seg_map_suffix): '
        )
        advice += suffixes_in(labels) if missing else ''
        for case in missing:
            problems.error(f'{key} {labels}', 'maps of labels that are missing', case, advice)
    return samples


def _check_other_suffixes(
    dataset: Any, samples: list[dict], folders: Folders, key: str, problems: Problems
) -> None:
    """Warn of images that mmseg leaves out for the end of their names, but that have labels."""
    folder, labels = (dataset.data_prefix.get(name) for name in ('img_path', 'seg_map_path'))
    known = {path for s in samples for path in (s['img_path'], s.get('seg_map_path'))}
    ending = dataset.img_suffix.rpartition('.')[0]  # of '_leftImg8bit.png'
    for where, _, names in os.walk(folder or '.', followlinks=True):
        for name in names:
            stem, suffix = os.path.splitext(name)
            path = os.path.join(where, name)
            if suffix.lower() not in IMAGE_SUFFIXES or path in known or not stem.endswith(ending):
                continue
            if name.endswith(dataset.img_suffix) or name.startswith('.'):
                continue
            if labels:
                inner = os.path.relpath(where, folder)
                label = stem.removesuffix(ending) + dataset.seg_map_suffix
                label = os.path.normpath(os.path.join(labels, inner, label))
                if label == os.path.normpath(path) or not folders.has(label):
                    continue
            advice = (
                f'mmseg takes those that end in {dataset.img_suffix!r} and leaves these out: '
                f'convert or rename them, or give them a dataset with its own {key}.img_suffix'
            )
            problems.warn(f'{key} {folder}', 'images that end otherwise', path, advice)


def ignored_labels(model: Any, evaluator: Any, trains: bool) -> set[int]:
    """Labels beyond the classes that the losses, or else the metrics, leave out.

    Args:
        model: the model's config.
        evaluator: the phase's; None to train.
        trains: whether the losses see the labels.
    """
    given = {
        part['ignore_index']
        for _, part, _ in dicts_in([model, evaluator])
        if isinstance(part.get('ignore_index'), int)
    }
    heads = _heads(model)
    if not trains or not heads:
        return given | {_IGNORED}
    of_heads = [{head.get('ignore_index', _IGNORED)} for head in heads]
    others = {
        part['ignore_index']
        for _, part, _ in dicts_in(model)
        if isinstance(part.get('ignore_index'), int) and not any(part is head for head in heads)
    }
    return set.intersection(*of_heads) | others


def number_of_labels(model: Any, classes: int) -> int:
    """How many labels mean something: 2, where one output tells one class from the rest."""
    binary = any(1 in (head.get('num_classes'), head.get('out_channels')) for head in _heads(model))
    return max(classes, 2) if binary and classes else classes


def _heads(model: Any) -> list[dict]:
    names = ('decode_head', 'auxiliary_head')
    found = [part.get(name) for _, part, _ in dicts_in(model) for name in names]
    several = [head if isinstance(head, (list, tuple)) else [head] for head in found]
    return [head for heads in several for head in heads if isinstance(head, dict)]


def check_occurrence(
    found: set[int],
    classes: list[str],
    ignored: set[int],
    reduces: bool,
    key: str,
    problems: Problems,
) -> None:
    """Warn if pixels to ignore occur, but not two classes: masks of 0 and 255 are that.

    Args:
        found: the labels of the maps that were looked at, once mapped.
        classes: names, in the order of their labels.
        ignored: of :func:`ignored_labels`.
        reduces: whether label 0 is one of those to ignore, and 1 the first class.
        key: config key of the dataset.
        problems: told of it.
    """
    occurring = [name for i, name in enumerate(classes) if i in found]
    left_out = sorted(found & ignored - set(range(len(classes))))
    if len(classes) < 2 or len(occurring) > 1 or not left_out:
        return
    numbers = ', '.join(map(str, left_out))
    case = f'{occurring[0] if occurring else "no class"} and {numbers}'
    advice = (
        f'{numbers} is no class, but a pixel to ignore: nothing is learned from it. Where it means '
        'a class (as in masks of 0 and 255), write the number of the class'
    )
    if reduces:
        advice += f'. With {key}.reduce_zero_label=True 0 is ignored, and 1 the first class'
    what = 'maps with one class at most, beside pixels to ignore'
    problems.warn(f'{key} seg_map_path', what, case, advice)


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
        The labels that occur, as LoadAnnotations maps them.
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
        numbers = ' or '.join(map(str, sorted(ignored))) or 'no number'
        advice = (
            f'For {classes} classes labels are {first} to {classes - 1 + first}, and {numbers} '
            f'to ignore a pixel: correct the maps, or {key}.metainfo.classes and num_classes'
        )
        if unknown.tolist() == [classes] and not sample['reduce_zero_label'] and found[0] > 0:
            advice += f'. Where 1 is the first class, set {key}.reduce_zero_label=True'
        case = f'{path} with {", ".join(map(str, unknown[:5]))}'
        problems.error(place, 'maps with labels that are not classes', case, advice)
    return mapped


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
