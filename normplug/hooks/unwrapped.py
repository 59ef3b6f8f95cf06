"""The model of a training, without the wrapper that distributes it."""

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

__all__ = ['unwrapped']


def unwrapped(runner: Runner) -> nn.Module:
    """The model as the config has it, whose names of layers have no ``module.`` in front."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
