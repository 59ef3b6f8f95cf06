"""State of transforms and data preprocessors, which no seed brings back."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from normplug.resume.kept import (
    caching_transforms,
    preprocessor_values,
    set_preprocessor_values,
)


class Keeping:
    """A transform with a cache of its own; ``use_cached`` is mmyolo's switch."""

    def __init__(self, use_cached=True):
        self.use_cached = use_cached
        self.results_cache = []

    def __call__(self, results):
        self.results_cache.append(results)
        return results


class Wrapper:
    """A transform with others inside, as RandomApply and MultiBranch have."""

    def __init__(self, **inner):
        self.inner = inner

    def __call__(self, results):
        return results


def data(*pipeline):
    dataset = BaseDataset(lazy_init=True, pipeline=list(pipeline), serialize_data=False)
    dataset._fully_initialized = True
    dataset.data_list = [{'cache': Keeping()}]  # no transform
    dataset.pipeline_cache = []
    return dataset


def runner(dataset, *hooks):
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    return SimpleNamespace(train_loop=loop, hooks=hooks)


@pytest.mark.parametrize(
    ('make', 'places'),
    [
        (lambda: data(Wrapper(), len), []),
        (lambda: data(Keeping(use_cached=False)), []),
        (lambda: data(len, Keeping()), ['dataset.pipeline.1']),
        (lambda: data(Wrapper(a=[Keeping()])), ['dataset.pipeline.0.inner.a.0']),
        (
            lambda: ConcatDataset([data(), data(Keeping())], lazy_init=True),
            ['dataset.datasets.1.pipeline.0'],
        ),
        (lambda: RepeatDataset(data(Keeping()), 2), ['dataset.dataset.pipeline.0']),
    ],
)
def test_caching_transforms_are_found_in_all_wrappers(make, places):
    found = caching_transforms(runner(make()))
    assert found == [f'train_dataloader.{place} (Keeping)' for place in places]


def test_pipelines_to_which_hooks_switch():
    switch = SimpleNamespace(switch_pipeline=[dict(type=Wrapper), dict(type=Keeping)])
    recipes = SimpleNamespace(schedule={3: {'train_pipeline': data(Keeping()).pipeline}})
    assert caching_transforms(runner(data(), switch, recipes)) == [
        'SimpleNamespace.switch_pipeline.1 (Keeping)',
        'SimpleNamespace.schedule.3.train_pipeline.0 (Keeping)',
    ]


def test_those_of_mmdet():
    wrappers = pytest.importorskip('mmdet.datasets')
    from mmdet.datasets.transforms import CachedMixUp, CachedMosaic, Mosaic, RandomFlip

    pipeline = [CachedMosaic(), RandomFlip(prob=0.5), CachedMixUp()]
    assert caching_transforms(runner(data(*pipeline))) == [
        'train_dataloader.dataset.pipeline.0 (CachedMosaic)',
        'train_dataloader.dataset.pipeline.2 (CachedMixUp)',
    ]
    mixing = wrappers.MultiImageMixDataset(data(), [dict(type=Mosaic)], lazy_init=True)
    assert caching_transforms(runner(mixing)) == []
    mixing.dataset = data(CachedMosaic())
    assert caching_transforms(runner(mixing)) == [
        'train_dataloader.dataset.dataset.pipeline.0 (CachedMosaic)'
    ]


def test_the_size_that_mmdet_has_drawn():
    preprocessors = pytest.importorskip('mmdet.models.data_preprocessors')
    resize = dict(
        type=preprocessors.BatchSyncRandomResize, random_size_range=(32, 64), size_divisor=32
    )

    def model():
        model = torch.nn.Module()
        model.data_preprocessor = preprocessors.DetDataPreprocessor(batch_augments=[resize])
        return model

    trained, resumed = model(), model()
    first = preprocessor_values(trained)
    trained.data_preprocessor.batch_augments[0]._input_size = (64, 32)
    changed = {k: v for k, v in preprocessor_values(trained).items() if v != first[k]}
    assert len(changed) == 1
    set_preprocessor_values(resumed, changed)
    assert resumed.data_preprocessor.batch_augments[0]._input_size == (64, 32)
