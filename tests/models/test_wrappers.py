"""The model inside what wraps it."""

import pytest
from mmengine.model import BaseModel, BaseTTAModel, ExponentialMovingAverage
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from normplug.models.wrappers import unwrapped


class Model(BaseModel):
    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs


class TTAModel(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def parallel():
    """A wrapper as DDP is one to mmengine, without a process group."""

    class Parallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    MODEL_WRAPPERS.register_module(module=Parallel)
    yield Parallel
    del MODEL_WRAPPERS.module_dict['Parallel']


def test_a_model_that_nothing_wraps_is_itself(model):
    assert unwrapped(model) is model
    own = nn.Module()
    own.module = model  # a model's own part of that name
    assert unwrapped(own) is own


def test_each_wrapper_and_one_around_another(model, parallel):
    assert unwrapped(parallel(model)) is model
    assert unwrapped(TTAModel(model)) is model
    assert unwrapped(parallel(TTAModel(model))) is model
    average = ExponentialMovingAverage(model)  # of a copy
    assert unwrapped(average) is average.module
