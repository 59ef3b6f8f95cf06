"""Training data, with and without augmentation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_reduce, broadcast
from mmengine.registry import DATA_SAMPLERS, DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Sampler

__all__ = ['batches_of_all_ranks', 'population_loader', 'restarted', 'sampler_of']


def batches_of_all_ranks(loader: DataLoader, wanted: int) -> int:
    """Return the number of batches that every rank has, ``wanted`` at most.

    Layers with statistics of all ranks wait for each other, so the number must be the same on all.
    """
    number = torch.tensor(min(wanted, len(loader)))
    all_reduce(number, 'min')
    return int(number)


def population_loader(
    cfg: Config, dataloader: dict | None = None, seed: int = 0, augmented: bool = False
) -> DataLoader:
    """Build the dataloader of a config's training data, with its pipeline for validation.

    Batch size, workers and the like are those of ``train_dataloader``. The samples are shuffled in
    the same order in every call, and divided among the ranks. Dataset wrappers that mix several
    images (those with a pipeline of their own, for example for mosaic) are removed.

    Args:
        cfg: a config with ``train_dataloader``, and ``val_dataloader`` or ``test_dataloader``.
        dataloader: config to build, unchanged, instead of that one.
        seed: seed of the order. All ranks use that of rank 0: with different orders they would
            miss samples.
        augmented: keep dataset, pipeline and sampler of ``train_dataloader``. Only an
            ``InfiniteSampler`` gives way to one pass, in its order: it would go on with other
            samples when the dataloader is read again.

    Raises:
        ValueError: a dataloader or dataset in the config is not a dict, or there is no pipeline.
    """
    if dataloader is not None:
        if not isinstance(dataloader, dict):
            raise ValueError(f'dataloader must be the config of one, a dict, got {dataloader!r}')
        loader = copy.deepcopy(dataloader)
    else:
        loader = _in_one_pass(cfg) if augmented else _without_augmentation(cfg)
    common = torch.tensor(seed)
    broadcast(common)  # with `randomness.diff_rank_seed` each rank has another
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        return Runner.build_dataloader(loader, seed=int(common))


@contextmanager
def restarted(loader: DataLoader) -> Iterator[None]:
    """Leave the batch sampler afterwards as it was before a pass that may end early.

    mmdet's AspectRatioBatchSampler keeps the samples of batches that were not full, and would begin
    the next pass with them.
    """
    own = vars(loader.batch_sampler)
    before = copy.deepcopy({name: v for name, v in own.items() if name != 'sampler'})
    try:
        yield
    finally:
        own.update(before)


def sampler_of(loader: DataLoader) -> Sampler:
    """Return what orders the samples: with a batch sampler of its own, a loader's is a dummy."""
    within = getattr(loader.batch_sampler, 'sampler', None)
    return loader.sampler if within is None else within


def _in_one_pass(cfg: Config) -> dict:
    loader = copy.deepcopy(cfg.get('train_dataloader'))
    if not isinstance(loader, dict):
        raise ValueError(
            'train_dataloader has to be a dict in the config; or set the option dataloader of the '
            'hook'
        )
    loader['persistent_workers'] = False
    sampler = loader.get('sampler')
    kind = sampler.get('type') if isinstance(sampler, dict) else None
    if isinstance(kind, str):
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            kind = DATA_SAMPLERS.get(kind)
    if isinstance(kind, type) and issubclass(kind, InfiniteSampler):
        shuffle = sampler.get('shuffle', True)
        loader['sampler'] = {'type': 'DefaultSampler', 'shuffle': shuffle}
    return loader


def _without_augmentation(cfg: Config) -> dict:
    train = cfg.get('train_dataloader')
    if not isinstance(train, dict) or not isinstance(train.get('dataset'), dict):
        raise ValueError(
            'train_dataloader with its dataset has to be a dict in the config, because the '
            'estimate of the population builds it with the pipeline for validation; or set the '
            'option dataloader of the hook'
        )
    loader = copy.deepcopy(train)
    loader['dataset'] = _with_pipeline(loader['dataset'], _test_pipeline(cfg))
    loader['sampler'] = {'type': 'DefaultSampler', 'shuffle': True}
    loader['persistent_workers'] = False
    return loader


def _test_pipeline(cfg: Config) -> list | None:
    for name in ('val_dataloader', 'test_dataloader'):
        dataset: Any = cfg.get(name)
        while isinstance(dataset, dict):
            if 'pipeline' in dataset:
                return dataset['pipeline']
            dataset = dataset.get('dataset') or next(iter(dataset.get('datasets') or []), None)
    return None


def _with_pipeline(dataset: dict, pipeline: list | None) -> dict:
    if isinstance(dataset.get('dataset'), dict):
        inner = _with_pipeline(dataset['dataset'], pipeline)
        return inner if 'pipeline' in dataset else {**dataset, 'dataset': inner}
    if 'datasets' in dataset:
        inner = [_with_pipeline(one, pipeline) for one in dataset['datasets']]
        return {**dataset, 'datasets': inner}
    if 'pipeline' not in dataset:  # the dataset has a fixed one
        return dataset
    if pipeline is None:
        raise ValueError(
            'neither val_dataloader nor test_dataloader has a pipeline, with which the estimate of '
            'the population would load the training data; set one, or the option dataloader of '
            'the hook'
        )
    return {**dataset, 'pipeline': pipeline}
