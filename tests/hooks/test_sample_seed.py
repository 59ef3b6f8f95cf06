"""Samples do not depend on the workers; loading them does not move the random state."""

import random

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from normplug.hooks import SampleSeedHook
from normplug.hooks.sample_seed import SeededBatches, SeededDataset
from normplug.random_state import get_random_state
from tests.hooks import tiny_training as tiny


class Noise(torch.utils.data.Dataset):
    """A draw from each generator, with the index."""

    pipeline = 'first'

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def loader(workers=0, seed=(0, 0), persistent=False):
    data = Noise()
    batches = SeededBatches(BatchSampler(SequentialSampler(data), 2, False), seed)
    return DataLoader(
        SeededDataset(data),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=persistent,
        collate_fn=list,
    )


def samples(loader, passes=2):
    return [[sample for batch in loader for sample in batch] for _ in range(passes)]


def test_each_sample_is_its_own():
    first, second = samples(loader())
    assert [sample[0] for sample in first] == [sample[0] for sample in second] == [*range(6)]
    for i in (1, 2, 3):  # python, numpy, torch
        assert len({sample[i] for sample in first + second}) == 12
    assert samples(loader()) == [first, second]
    for seed in [(1, 0), (0, 1)]:  # another seed, another rank
        assert not {s[1] for s in samples(loader(seed=seed))[0]} & {s[1] for s in first}


@pytest.mark.slow
@pytest.mark.parametrize(('workers', 'persistent'), [(1, False), (2, False), (2, True)])
def test_workers_make_no_difference(workers, persistent):
    assert samples(loader(workers, persistent=persistent)) == samples(loader())


def test_loading_in_the_main_process_leaves_the_random_state():
    batches = iter(loader())
    before = get_random_state()
    next(batches)
    tiny.assert_equal(before, get_random_state(), 'random state')


def test_skipped_batches_are_not_loaded_and_the_rest_is_the_same():
    first, second = samples(loader())
    resumed = loader()
    assert resumed.batch_sampler.skip(4) == 1
    assert samples(resumed, 1) == [second[2:]]
    resumed = loader()
    assert resumed.batch_sampler.skip(3) == 0  # all of the first pass: its end is yet to be seen
    assert samples(resumed) == [[], second]
    resumed = loader()
    assert resumed.batch_sampler.skip(0) == 0
    assert samples(resumed) == [first, second]


def test_wrappers_pass_for_what_they_wrap():
    loaded = loader()
    dataset, batches = loaded.dataset, loaded.batch_sampler
    assert len(dataset) == 6
    assert len(batches) == len(loaded) == 3
    assert batches.batch_size == 2
    dataset.pipeline = 'second'  # as mmdet's PipelineSwitchHook does
    assert dataset.pipeline == vars(dataset)['_dataset'].pipeline == 'second'
    with pytest.raises(AttributeError):
        dataset.nothing  # noqa: B018
    assert dataset[3][0] == 3


class Fetching(Noise):
    """A dataset that loads whole batches, as torch's Subset does."""

    def __getitems__(self, indices):
        raise AssertionError('not seeded')


def test_samples_are_taken_one_by_one():
    data = Fetching()
    batches = SeededBatches(BatchSampler(SequentialSampler(data), 2, False), (0, 0))
    assert samples(DataLoader(SeededDataset(data), batch_sampler=batches, collate_fn=list)) == (
        samples(loader())
    )


@pytest.mark.slow
@pytest.mark.parametrize('by_epoch', [True, False])
def test_training_is_the_same_for_all_numbers_of_workers(tmp_path, by_epoch):
    finals = []
    for name, workers, persistent in [('0', 0, False), ('1', 1, False), ('2', 2, True)]:
        cfg = tiny.config(tmp_path / name, by_epoch, workers, persistent=persistent)
        assert tiny.train_apart(cfg) == 0
        finals.append(tiny.load(tmp_path / name))
    tiny.assert_same_training(finals[0], finals[1])
    tiny.assert_same_training(finals[0], finals[2])


def test_data_without_indices_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    runner = tiny.build(tiny.config(tmp_path))
    loader = DataLoader(tiny.NoisyDataset(), batch_size=None)
    runner._train_loop = runner.build_train_loop({'by_epoch': True, 'max_epochs': 1})
    runner._train_loop.dataloader = loader
    with pytest.raises(ValueError, match='SampleSeedHook needs a train_dataloader with a batch'):
        SampleSeedHook().before_train(runner)


class CachedMix:
    def __init__(self):
        self.results_cache = []

    def __call__(self, results):
        return results


@pytest.mark.parametrize('seeded', [True, False])
def test_a_transform_with_a_cache_is_named_once(tmp_path, monkeypatch, seeded):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    cfg = tiny.config(tmp_path, hooks=('SampleSeedHook',) if seeded else ())
    runner = tiny.build(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    said = []
    monkeypatch.setattr(runner.logger, 'warning', said.append)
    runner.train_dataloader.dataset.pipeline.transforms.append(CachedMix())
    checkpoint = {'random_states': [get_random_state()], 'meta': {'seed': runner.seed}}
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    runner._train_loop._iter = 6  # it resumes
    runner.call_hook('before_train')
    assert [text for text in said if 'train_dataloader.dataset.pipeline.0 (CachedMix)' in text]
    assert len(said) == 1


def test_registered_in_the_root():
    assert HOOKS.module_dict['SampleSeedHook'] is SampleSeedHook
