"""The dataloader of training data without augmentation."""

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset, DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from torch.utils.data import BatchSampler, DataLoader, Sampler

from normplug.population import batches_of_all_ranks, population_loader, restarted, sampler_of


@TRANSFORMS.register_module()
class Marking:
    def __init__(self, mark):
        self.mark = mark

    def __call__(self, results):
        return {'x': results['x'], 'mark': self.mark}


@DATASETS.register_module()
class MarkedDataset(BaseDataset):
    def load_data_list(self):
        return [{'x': i} for i in range(7)]


@DATASETS.register_module()
class MixingDataset:
    """A wrapper with a pipeline of its own."""

    def __init__(self, dataset, pipeline):
        raise AssertionError('left out')


@DATA_SAMPLERS.register_module()
class OddSampler(Sampler):
    def __init__(self, dataset, seed):
        self.dataset = dataset

    def __iter__(self):
        return iter(range(1, len(self.dataset), 2))

    def __len__(self):
        return len(self.dataset) // 2


def dataset(mark):
    return {
        'type': 'MarkedDataset',
        'pipeline': [{'type': 'Marking', 'mark': mark}],
        'serialize_data': False,
    }


def config(train, sampler='InfiniteSampler', **more):
    loader = {'batch_size': 2, 'collate_fn': {'type': 'default_collate'}, **more}
    return Config(
        {
            'train_dataloader': {**loader, 'dataset': train, 'sampler': {'type': sampler}},
            'val_dataloader': {'dataset': {'type': 'RepeatDataset', 'dataset': dataset('val')}},
        }
    )


def contents(loader):
    return [(batch['x'].tolist(), set(batch['mark'])) for batch in loader]


def test_training_data_with_the_pipeline_for_validation_in_one_pass():
    cfg = config(dataset('train'))
    before = cfg.to_dict()
    loader = population_loader(cfg, seed=3)
    found = contents(loader)
    assert [len(x) for x, _ in found] == [2, 2, 2, 1]
    assert sorted(i for x, _ in found for i in x) == list(range(7))
    assert all(marks == {'val'} for _, marks in found)
    assert contents(loader) == found  # the same samples every time
    assert contents(population_loader(cfg, seed=3)) == found
    assert contents(population_loader(cfg, seed=4)) != found
    assert cfg.to_dict() == before
    assert batches_of_all_ranks(loader, 200) == 4
    assert batches_of_all_ranks(loader, 3) == 3


def test_wrappers_stay_but_those_that_mix_images():
    repeated = {'type': 'RepeatDataset', 'times': 2, 'dataset': dataset('train')}
    mosaic = {'type': 'MixingDataset', 'dataset': dataset('train'), 'pipeline': []}
    joined = {'type': 'ConcatDataset', 'datasets': [repeated, mosaic]}
    found = contents(population_loader(config(joined)))
    assert sum(len(x) for x, _ in found) == 21
    assert all(marks == {'val'} for _, marks in found)


def test_batch_sampler_stays():
    cfg = config(dataset('train'), batch_sampler={'type': BatchSampler, 'drop_last': True})
    assert len(contents(population_loader(cfg))) == 3


@pytest.mark.parametrize('name', ['InfiniteSampler', 'DefaultSampler', InfiniteSampler])
@pytest.mark.parametrize('shuffle', [True, False])
def test_augmented_is_the_trainings_own_in_one_pass(name, shuffle):
    cfg = config(dataset('train'), name, persistent_workers=True)
    cfg.pop('val_dataloader')
    cfg.train_dataloader.sampler.shuffle = shuffle
    before = cfg.to_dict()
    loader = population_loader(cfg, seed=3, augmented=True)
    assert not loader.persistent_workers
    assert type(sampler_of(loader)) is DefaultSampler
    found = contents(loader)
    assert sorted(i for x, _ in found for i in x) == list(range(7))
    assert ([x for x, _ in found] == [[0, 1], [2, 3], [4, 5], [6]]) != shuffle
    assert contents(loader) == found
    assert all(marks == {'train'} for _, marks in found)
    assert cfg.to_dict() == before


def test_augmented_keeps_what_is_not_infinite():
    batched = {'batch_sampler': {'type': BatchSampler, 'drop_last': False}}
    cfg = config(dataset('train'), 'OddSampler', **batched)
    loader = population_loader(cfg, augmented=True)
    assert type(sampler_of(loader)) is OddSampler
    assert type(loader.sampler) is not OddSampler
    assert contents(loader) == [([1, 3], {'train'}), ([5], {'train'})]
    cfg = config(dataset('train'), 'OddSampler')
    assert type(sampler_of(population_loader(cfg, augmented=True))) is OddSampler
    with pytest.raises(ValueError, match='train_dataloader has to be a dict in the config; or set'):
        population_loader(Config({}), augmented=True)


def test_own_dataloader():
    own = {**config(dataset('own')).train_dataloader, 'sampler': {'type': 'DefaultSampler'}}
    found = contents(population_loader(config(dataset('train')), own))
    assert all(marks == {'own'} for _, marks in found)


def test_no_pipeline():
    cfg = config(dataset('train'))
    cfg.pop('val_dataloader')
    with pytest.raises(ValueError, match=r'neither val_dataloader .*estimate of the population'):
        population_loader(cfg)


def test_no_config_of_the_data():
    with pytest.raises(ValueError, match=r'train_dataloader with its.*estimate of the population'):
        population_loader(Config({}))


class Leftovers(BatchSampler):
    """Keeps the samples of a batch that is not full, as mmdet's AspectRatioBatchSampler does."""

    def __init__(self, sampler, batch_size):
        super().__init__(sampler, batch_size, drop_last=False)
        self.waiting = []

    def __iter__(self):
        for index in self.sampler:
            self.waiting.append(index)
            if len(self.waiting) > self.batch_size:
                yield [self.waiting.pop(0) for _ in range(self.batch_size)]


def test_a_pass_that_ends_early_leaves_nothing_to_the_next():
    batches = Leftovers(range(9), 2)
    loader = DataLoader(list(range(9)), batch_sampler=batches)
    first = next(iter(loader)).tolist()
    assert next(iter(loader)).tolist() != first  # as it is
    batches.waiting = []
    for _ in range(2):
        with restarted(loader):
            assert next(iter(loader)).tolist() == first
