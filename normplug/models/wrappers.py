"""The model inside what wraps it."""

from __future__ import annotations

from mmengine.model import BaseAveragedModel, BaseTTAModel, is_model_wrapper
from torch import nn

__all__ = ['unwrapped']


def unwrapped(model: nn.Module) -> nn.Module:
    """The model as the config has it, whose names of layers have no ``module.`` in front.

    Args:
        model: it, or what wraps it: for several processes, as an average over the training (EMA),
            for test-time augmentation.
    """
    while is_model_wrapper(model) or isinstance(model, (BaseAveragedModel, BaseTTAModel)):
        model = model.module
    return model
