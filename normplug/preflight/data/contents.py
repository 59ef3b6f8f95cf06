"""Check what the files of the datasets hold.

Most checks are for mm's own COCO, segmentation, classification and video datasets. Those of other
types (LVIS, VOC, a user's own) are read by their own code if everything is to be decoded. Remote
files are left alone. ``Problems.unseen`` lists what was not looked at.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from ..config import iter_datasets
from ..config_types import class_of, name_of, scope_of
from . import classification, detection, others, segmentation, videos
from .dataset_config import (
    CLASSIFICATION,
    COCO,
    RAWFRAMES,
    SEGMENTATION,
    VIDEOS,
    build_lazily,
    downloads,
    image_loader,
    is_remote,
    loads_as,
    spread,
    transforms,
)
from .decode import UnreadableError, image_size
from .problems import Problems
from .uses import CocoUse

__all__ = ['check_contents']


def check_contents(cfg: Config, phases: tuple[str, ...], decoded: int | None) -> Problems:
    """Check what the datasets and metrics of ``phases`` will read.

    Args:
        cfg: a config whose files exist and whose types are known.
        phases: of ``'train'``, ``'val'``, ``'test'``.
        decoded: how many images or clips of each dataset to decode, spread evenly; None for all.

    Raises:
        UserError: a dataset cannot be built.
    """
    problems = Problems()
    folders: dict[str, list[str]] = {}
    for phase in phases:
        checked = _Phase(cfg, phase, problems, decoded)
        checked.check()
        folders |= checked.class_folders
    if folders:
        classification.same_labels(folders, problems)
    return problems


class _Phase:
    """The datasets and metrics of one phase."""

    def __init__(self, cfg: Config, phase: str, problems: Problems, decoded: int | None) -> None:
        self.problems = problems
        self.decoded = decoded
        self.coco: list[tuple[str, Any, dict]] = []
        self.segmentation: list[tuple[str, Any, dict]] = []
        self.others: list[tuple[str, Any, dict]] = []
        self.classification: list[tuple[str, Any, dict]] = []
        self.videos: list[tuple[str, Any, dict]] = []
        self.class_folders: dict[str, list[str]] = {}
        loader = cfg.get(f'{phase}_dataloader') or {}
        self.scope = scope = scope_of(cfg)
        found = (
            list(iter_datasets(loader, f'{phase}_dataloader')) if isinstance(loader, dict) else []
        )
        if loader and not found:
            problems.unseen.append(f'{phase}_dataloader: it holds no dataset in a known place')
        for key, config in found:
            kind = class_of(config, DATASETS, scope)
            name = f'{key} ({name_of(config.get("type"))})'
            if is_remote(config):
                problems.unseen.append(f'{name}: its files are not on this machine')
            elif loads_as(kind, COCO) and config.get('ann_file'):
                self.coco.append((key, build_lazily(kind, key, config), config))
            elif loads_as(kind, SEGMENTATION):
                self.segmentation.append((key, build_lazily(kind, key, config), config))
            elif loads_as(kind, CLASSIFICATION):
                self.classification.append((key, build_lazily(kind, key, config), config))
            elif loads_as(kind, VIDEOS) or loads_as(kind, RAWFRAMES):
                self.videos.append((key, build_lazily(kind, key, config), config))
            elif downloads(config, scope):
                problems.unseen.append(f'{name}: it downloads its files itself')
            else:
                self.others.append((key, kind, config))
        self.model = cfg.get('model')
        self.ignored = segmentation.ignored_labels(
            self.model, cfg.get(f'{phase}_evaluator'), phase == 'train'
        )
        self.metrics = list(_metrics(cfg.get(f'{phase}_evaluator') or {}, f'{phase}_evaluator'))

    def check(self) -> None:
        """Fill ``problems``."""
        if self.coco:
            self._check_coco()
        for key, dataset, config in self.segmentation:
            self._check_segmentation(key, dataset, config)
        for key, dataset, config in self.classification:
            paths = classification.find_images(dataset, key, self.problems)
            self._decode_images(key, config, paths)
            folders = classification.class_folders(dataset)
            if folders is not None:
                self.class_folders[key] = folders
        for key, dataset, config in self.videos:
            videos.check_clips(
                dataset, key, config, self.model, self.scope, self.decoded, self.problems
            )
        for key, kind, config in self.others:
            self._check_other(key, kind, config)

    def _check_coco(self) -> None:
        uses = []
        for key, dataset, config in self.coco:
            loading = transforms(config, 'LoadAnnotations', 'LoadPanopticAnnotations')
            with_mask = [transform for transform in loading if transform.get('with_mask')]
            use = CocoUse(
                f'{key}.ann_file',
                dataset.ann_file,
                trains=bool(loading) and not dataset.test_mode,
                loads_masks=bool(with_mask),
                polygons_only=any(not t.get('poly2mask', True) for t in with_mask),
                unique_ids=dataset.ANN_ID_UNIQUE,
                classes=frozenset(dataset.metainfo.get('classes') or ()),
            )
            uses.append(use)
        for metric in self.metrics:
            metric.classes = frozenset().union(*(use.classes for use in uses))
        files = detection.read_files([*uses, *self.metrics], self.problems)
        for (key, dataset, config), use in zip(self.coco, uses, strict=True):
            file = files.get(use.path)
            if file is None:
                continue
            if 'img' not in dataset.data_prefix:
                advice = f'Set {key}.data_prefix = dict(img=FOLDER)'
                found = ', '.join(dataset.data_prefix)
                self.problems.error(f'{key}.data_prefix', 'keys in place of img', found, advice)
                continue
            metainfo = config.get('metainfo') or {}
            file.check_classes(dataset.metainfo.get('classes'), metainfo, self.problems)
            images = detection.used_images(dataset, file, use.trains, self.problems)
            loader = image_loader(config)
            if loader is not None:
                detection.check_images(images, dataset, key, self.problems)
                prefix = dataset.data_prefix['img']
                paths = [os.path.join(prefix, image['file_name']) for image in images]
                sizes = [(image['width'], image['height']) for image in images]
                self._decode(key, loader, paths, sizes)
            for metric in self.metrics:
                if metric.path in files and metric.path != use.path:
                    detection.same_images(file, files[metric.path], self.problems)
                    if len(uses) == 1:  # a file for several datasets is one of its own
                        what = "files of a metric other than its dataset's"
                        advice = f'It is scored by these boxes, not by those of {file.path}'
                        self.problems.warn(metric.key, what, metric.path, advice)

    def _check_segmentation(self, key: str, dataset: Any, config: dict) -> None:
        loads = transforms(config, 'LoadAnnotations')
        samples = segmentation.check_files(dataset, key, bool(loads), self.problems)
        loader = image_loader(config)
        if loader is None:
            return
        samples = [samples[i] for i in spread(len(samples), self.decoded)]
        sizes = self._decode(key, loader, [sample['img_path'] for sample in samples])
        if not loads:
            return
        for reduces in {transform.get('reduce_zero_label') for transform in loads}:
            if reduces is not None and reduces != dataset.reduce_zero_label:
                case = f'{dataset.reduce_zero_label}, that of LoadAnnotations is {reduces}'
                advice = f'mmseg takes the same alone: set {key}.reduce_zero_label={reduces}, or '
                advice += 'leave it out of LoadAnnotations'
                what = 'values other than that of the pipeline'
                self.problems.error(f'{key}.reduce_zero_label', what, case, advice)
        classes = list(dataset.metainfo.get('classes') or ())
        labels = segmentation.number_of_labels(self.model, len(classes))
        backend = loads[0].get('imdecode_backend', 'pillow')
        found: set[int] = set()
        for sample, size in zip(samples, sizes, strict=True):
            if size is not None and os.path.isfile(sample.get('seg_map_path') or ''):
                occurring = segmentation.check_labels(
                    sample, size, labels, self.ignored, backend, key, self.problems
                )
                found.update(occurring.tolist())
        segmentation.check_occurrence(
            found, classes, self.ignored, dataset.reduce_zero_label, key, self.problems
        )
        if self.decoded is None:
            for name in [name for i, name in enumerate(classes) if i not in found]:
                advice = 'Are the labels numbered in the order of the classes?'
                self.problems.warn(f'{key} seg_map_path', 'classes that never occur', name, advice)

    def _check_other(self, key: str, kind: Any, config: dict) -> None:
        if self.decoded is not None:
            return  # its own code may take long, and runs in the training soon
        name = f'{key} ({name_of(config.get("type"))})'
        paths = others.find_images(kind, key, config, self.problems)
        if paths is None:
            self.problems.unseen.append(
                f'{name}: its type is not known here, or has no images or writes files'
            )
        elif paths:
            self.problems.unseen.append(f'{name}: its annotations, beyond that they can be read')
            self._decode_images(key, config, paths)

    def _decode_images(self, key: str, config: dict, paths: list[str]) -> None:
        loader = image_loader(config)
        if loader is not None:
            self._decode(key, loader, paths)
        elif paths:
            self.problems.unseen.append(
                f'{key} ({name_of(config.get("type"))}): whether its images decode'
            )

    def _decode(
        self, key: str, loader: dict, paths: list[str], sizes: list | None = None
    ) -> list[tuple[int, int] | None]:
        """Decode images; compare with the ``sizes`` of the annotations; return the real ones."""
        how = loader.get('color_type', 'color'), loader.get('imdecode_backend', 'cv2')

        def size_of(path: str) -> tuple[int, int] | UnreadableError | None:
            try:
                return image_size(path, *how) if os.path.isfile(path) else None
            except UnreadableError as error:
                return error

        chosen = spread(len(paths), self.decoded)
        # Pillow warns of large images. The filters belong to the process: not in its threads.
        with warnings.catch_warnings(), ThreadPoolExecutor() as pool:  # decoding holds no lock
            warnings.simplefilter('ignore')
            found = list(pool.map(size_of, [paths[i] for i in chosen]))
        for i, size in zip(chosen, found, strict=True):
            if isinstance(size, UnreadableError):
                advice = 'Copy or download them again, or take them out of the dataset'
                case = f'{paths[i]} {size}'
                self.problems.error(key, 'images that cannot be read', case, advice)
            elif size is not None and sizes is not None and size != tuple(sizes[i]):
                case = f'{paths[i]} {size[0]}x{size[1]}, annotated {sizes[i][0]}x{sizes[i][1]}'
                advice = 'The boxes are for another resolution: use the images that were annotated'
                what = 'images of another size than their annotation file says'
                self.problems.error(f'{key}.ann_file', what, case, advice)
        return [None if isinstance(size, UnreadableError) else size for size in found]


def _metrics(evaluator: dict | list, key: str) -> Iterator[CocoUse]:
    """What the COCO metrics of an evaluator ask for."""
    if isinstance(evaluator, (list, tuple)):
        for i, metric in enumerate(evaluator):
            yield from _metrics(metric, f'{key}.{i}')
        return
    known = name_of(evaluator.get('type')) == 'CocoMetric' and not is_remote(evaluator)
    if known and evaluator.get('ann_file'):
        scores = not evaluator.get('format_only')
        yield CocoUse(
            f'{key}.ann_file',
            evaluator['ann_file'],
            scores=scores,
            scores_masks=scores and 'segm' in (evaluator.get('metric') or ()),
        )
