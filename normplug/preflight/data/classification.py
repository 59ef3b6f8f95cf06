"""Check that the folders or lists of a classification dataset give the intended labels."""

from __future__ import annotations

import os
from typing import Any

from .dataset_config import chosen_by_indices
from .folders import IMAGE_SUFFIXES, Folders, suffixes_in
from .problems import Problems

__all__ = ['class_folders', 'find_images', 'labels_of', 'same_labels']


def class_folders(dataset: Any) -> list[str] | None:
    """The folders that give labels, in their order; None for a dataset that has no such.

    Args:
        dataset: mmpretrain's ``CustomDataset``, not fully initialized.
    """
    if dataset.ann_file or not dataset.with_label:
        return None
    if not os.path.isdir(dataset.img_prefix or '.'):
        return []
    with os.scandir(dataset.img_prefix or '.') as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def labels_of(dataset: Any) -> tuple[str, ...] | None:
    """A name for each label up to the highest; None where there are no labels or they are wrong."""
    if not dataset.with_label:
        return None
    folders = class_folders(dataset)
    if folders is not None:
        return tuple(folders) or None
    labels = [label for _, label in _lines(dataset) if label is not None]
    return tuple(map(str, range(max(labels, default=-1) + 1))) or None


def find_images(dataset: Any, key: str, problems: Problems) -> list[str]:
    """Return the paths of the images that mmpretrain would load.

    Args:
        dataset: mmpretrain's ``CustomDataset``, not fully initialized.
        key: its config key.
        problems: what is wrong with folders, lists and labels goes there.
    """
    if dataset.ann_file:
        return _listed(dataset, key, problems)
    folder = dataset.img_prefix
    names = class_folders(dataset)
    hidden = [name for name in names or () if name.startswith('.')]
    for name in hidden:
        advice = 'mmpretrain takes each folder for a class, and numbers them by name: remove these'
        case = os.path.join(folder, name)
        problems.error(f'{key} {folder}', 'hidden folders, which count as classes', case, advice)
    classes = dataset.CLASSES
    if names is not None and classes is not None and len(classes) != len(names):
        advice = 'mmpretrain takes each folder for a class: make both alike'
        case = f'{len(names)}, {key}.metainfo.classes has {len(classes)}'
        problems.error(f'{key} {folder}', 'another number of folders than classes', case, advice)
        return []
    if names and classes and sorted(classes) == names and list(classes) != names:
        what = 'classes in another order than the folders, whose order numbers the labels'
        problems.warn(f'{key}.metainfo.classes', what, ', '.join(classes[:5]), 'Sort them')
    paths, others = [], []
    counts = dict.fromkeys(names or (), 0)
    for where, _, files in os.walk(folder or '.', followlinks=True):
        inner = os.path.relpath(where, folder or '.').split(os.sep)[0]
        if names is not None and inner == '.':
            continue  # only what lies in a folder has a label
        for file in sorted(files):
            if file.startswith('.'):
                continue
            if dataset.is_valid_file(file):
                paths.append(os.path.join(where, file))
                counts[inner] = counts.get(inner, 0) + 1
            elif os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:
                others.append(os.path.join(where, file))
    for path in others:
        advice = f'mmpretrain leaves them out: convert them, or set {key}.extensions'
        problems.warn(f'{key} {folder}', 'images that end otherwise', path, advice)
    if not paths:
        advice = f'Set {key}.data_root or data_prefix; {suffixes_in(folder)}'
        problems.error(f'{key} {folder}', 'folders without any image', folder, advice)
        return []
    for name in [name for name in counts if not counts[name] and name not in hidden]:
        advice = 'Each counts as a class all the same'
        problems.warn(f'{key} {folder}', 'class folders without any image', name, advice)
    return chosen_by_indices(sorted(paths), dataset)


def same_labels(folders: dict[str, list[str]], problems: Problems) -> None:
    """Check that a label means the same class in all datasets whose folders give the labels.

    Args:
        folders: config key → class folders in their order.
        problems: told of each that does not.
    """
    (first, names), *others = folders.items()
    for key, found in others:
        for label, (one, other) in enumerate(zip(names, found, strict=False)):
            if one != other:
                case = f'label {label} is {other}, in {first} {one}'
                advice = 'mmpretrain numbers the folders by name: give all datasets the same ones'
                problems.error(key, 'labels that mean another class', case, advice)
                break


def _listed(dataset: Any, key: str, problems: Problems) -> list[str]:
    place = f'{key}.ann_file {dataset.ann_file}'
    lines = _lines(dataset)
    if not lines:
        problems.error(place, 'empty files', dataset.ann_file, 'Write or download it again')
    paths = []
    for number, (name, label) in enumerate(lines, 1):
        if not name or (dataset.with_label and (label is None or label < 0)):
            advice = 'Each line is a file name, a space and the number of its class, from 0'
            problems.error(place, 'lines without file or label', f'line {number}', advice)
        paths.append(os.path.join(dataset.img_prefix, name))
    folders = Folders()
    paths = chosen_by_indices(paths, dataset)
    for path in paths:
        if not folders.has(path):
            advice = f'Put them there, or set {key}.data_prefix'
            problems.error(place, 'images that are missing', path, advice)
    return paths


def _lines(dataset: Any) -> list[tuple[str, int | None]]:
    """(File name, label) of each line; None for a label that is missing or no number."""
    with open(dataset.ann_file, encoding='utf-8') as file:
        lines = [line.rstrip('\n\r') for line in file]
    if not dataset.with_label:
        return [(line, None) for line in lines]
    found: list[tuple[str, int | None]] = []
    for line in lines:
        name, _, label = line.strip().rpartition(' ')
        try:
            found.append((name, int(label)))
        except ValueError:
            found.append((name or label, None))
    return found
