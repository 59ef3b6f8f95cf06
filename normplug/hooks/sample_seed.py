"""Seed augmentation by the place of a sample in the training, not by the worker."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, get_worker_info

from normplug.random_state import get_random_state, set_random_state
from normplug.resume.kept import caching_transforms

__all__ = ['SampleSeedHook']


@HOOKS.register_module()
class SampleSeedHook(Hook):
    """Seed python, numpy and torch for each training sample before its pipeline runs.

    The seed of a sample is computed from the seed of the run, the rank, the pass over the data, the
    number of the batch in the pass and the place in the batch. So the samples do not depend on
    ``num_workers``, persistent workers or a resumption, and loading in the main process
    (``num_workers=0``) does not change the random state of training. (mmengine seeds a worker when
    it starts: each epoch then begins with the same random numbers.)

    An iteration-based training that resumes skips the samples that were used without loading them.

    Transforms with a generator of their own are not seeded. Those that cache earlier samples
    (mmdet's CachedMosaic and CachedMixUp) still depend on the workers, and the log warns of them.

    Raises:
        ValueError: the training data is an ``IterableDataset``, or has no batches.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Put the seeds between the batch sampler and the dataset of the training loop.

        Here, because the loops are built and a resumed run has its seed and its iteration.
        """
        loop = runner.train_loop
        loader = loop.dataloader
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            raise ValueError(
                'SampleSeedHook needs a train_dataloader with a batch_size and a dataset of '
                'indexed samples; remove the hook from the config'
            )
        if isinstance(loader.dataset, SeededDataset):  # the runner trains again
            return
        caching = caching_transforms(runner)
        if caching:
            runner.logger.warning(
                f'{", ".join(caching)}: these transforms keep earlier samples in a cache, whatever '
                'the seeds. So the samples depend on num_workers, and a resumed training, whose '
                'caches begin empty, is not the uninterrupted one bit for bit'
            )
        _renew_samplers(runner, loader)
        self._batches = SeededBatches(loader.batch_sampler, (runner.seed, get_rank()))
        # DataLoader refuses the assignment, because it would not reach an iterator in use. None
        # is: that of an iteration-based loop is made anew below, and the one which persistent
        # workers would keep is let go.
        vars(loader).update(
            dataset=SeededDataset(loader.dataset), batch_sampler=self._batches, _iterator=None
        )
        # Each new iterator draws a seed for its workers, and persistent ones are not renewed when a
        # training resumes: not from the random state of training, then. (Nothing uses the seed.)
        loader.generator = torch.Generator()
        self._is_infinite = hasattr(loop, 'dataloader_iterator')
        if self._is_infinite:
            passes = self._batches.skip(loop.iter)
            loop.dataloader_iterator = _SkippingIterator(loader, loop.iter, passes)

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the number of the pass, even if other code has iterated over the dataloader."""
        if not self._is_infinite:
            self._batches.number = runner.epoch


class _Draw(NamedTuple):
    """An index with a seed, which the batch sampler passes to the dataset."""

    index: Any
    seed: tuple[int, ...]


class SeededBatches:
    """A batch sampler whose indices carry seeds; in all else that of ``batch_sampler``.

    Args:
        batch_sampler: yields lists of indices.
        seed: first integers of each seed, from 0.
    """

    def __init__(self, batch_sampler: BatchSampler, seed: tuple[int, ...]) -> None:
        self._batch_sampler = batch_sampler
        self._seed = seed
        self._begun: Iterator[list[_Draw]] | None = None
        self.number = 0  # of the next pass

    def __len__(self) -> int:
        return len(self._batch_sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch_sampler, name)

    def __iter__(self) -> Iterator[list[_Draw]]:
        # A generator, which begins with the first batch: DataLoader with workers makes two
        # iterators for a pass and drops the first.
        begun, self._begun = self._begun, None
        yield from self._pass() if begun is None else begun

    def _pass(self) -> Iterator[list[_Draw]]:
        number, self.number = self.number, self.number + 1
        return (
            [_Draw(index, (*self._seed, number, i, j)) for j, index in enumerate(indices)]
            for i, indices in enumerate(self._batch_sampler)
        )

    def skip(self, batches: int) -> int:
        """Draw ``batches`` as mmengine's infinite iterator does; return the passes completed.

        The next iteration over this object goes on from there.
        """
        passes = 0
        self._begun = self._pass()
        for _ in range(batches):
            if next(self._begun, None) is None:
                passes += 1
                if hasattr(self.sampler, 'set_epoch'):
                    self.sampler.set_epoch(passes)
                self._begun = self._pass()
                next(self._begun)
        return passes


class SeededDataset:
    """A dataset that seeds the generators with the seed in the index; in all else ``dataset``.

    Attributes are read from and written to ``dataset``: hooks change pipelines in training.
    """

    def __init__(self, dataset: Any) -> None:
        vars(self)['_dataset'] = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, draw: _Draw) -> Any:
        if not isinstance(draw, _Draw):  # somebody looks at a sample
            return self._dataset[draw]
        # A worker's own state is of no use; the main process's is that of training.
        before = get_random_state(cuda=False) if get_worker_info() is None else None
        _seed(draw.seed)
        try:
            return self._dataset[draw.index]
        finally:
            if before is not None:
                set_random_state(before)

    def __getattr__(self, name: str) -> Any:
        # Special methods stay this class's: DataLoader looks for __getitems__, pickle for others.
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(vars(self)['_dataset'], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)


class _SkippingIterator(_InfiniteDataloaderIterator):
    """mmengine's iterator over passes; its first ``skipped`` items are None, and cost nothing.

    Args:
        loader: goes on after them.
        skipped: how many.
        passes: completed in them.
    """

    def __init__(self, loader: DataLoader, skipped: int, passes: int) -> None:
        super().__init__(loader)
        self._epoch = passes
        self._skipped = skipped

    def __next__(self) -> Any:
        if self._skipped > 0:
            self._skipped -= 1
            return None
        return super().__next__()


def _seed(entropy: tuple[int, ...]) -> None:
    words = np.random.SeedSequence(entropy).generate_state(8)
    random.seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:6])
    # Not torch.manual_seed, which seeds CUDA too: that is the state of training.
    torch.default_generator.manual_seed(int(words[6]) << 32 | int(words[7]))


def _renew_samplers(runner: Runner, loader: DataLoader) -> None:
    """Give ``loader`` new samplers with the run's seed, as ``Runner.build_dataloader`` builds them.

    Those it has were built before a resumed run took over the seed of its checkpoint; and the
    workers of an iteration-based loop, already started, have drawn from them. A sampler or a
    dataloader that was given to the runner as an object stays.
    """
    cfg = runner._train_dataloader  # the config; the property is the built one
    if isinstance(cfg, DataLoader) or not isinstance(cfg.get('sampler'), dict):
        return
    seed = runner.seed
    if runner._randomness_cfg.get('diff_rank_seed', False):
        seed -= get_rank()  # mmengine has added it, and all ranks must shuffle alike
    defaults = {'dataset': loader.dataset, 'seed': seed}
    sampler = DATA_SAMPLERS.build(dict(cfg['sampler']), default_args=defaults)
    if cfg.get('batch_sampler') is None:
        batches = BatchSampler(sampler, loader.batch_size, loader.drop_last)
        vars(loader)['sampler'] = sampler  # has its epoch set there
    else:
        defaults = {'sampler': sampler, 'batch_size': cfg['batch_size']}
        batches = DATA_SAMPLERS.build(dict(cfg['batch_sampler']), default_args=defaults)
    vars(loader)['batch_sampler'] = batches
