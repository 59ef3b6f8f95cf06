"""What trainings with precise BN are made of: data that draw nothing, and the validated states."""

import copy

import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS

from tests.hooks import tiny_training as tiny


@DATASETS.register_module()
class PlainDataset(tiny.NoisyDataset):
    """Samples that do not depend on the generators."""

    def prepare_data(self, idx):
        generator = torch.Generator().manual_seed(idx)
        image = torch.randn(3, 4, 4, generator=generator) * (idx + 1)
        return {'image': image, 'label': idx % 2, 'index': idx}


@HOOKS.register_module()
class ValidatedHook(Hook):
    """Keeps the state that is validated."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.states = []

    def before_val_epoch(self, runner):
        self.states.append(copy.deepcopy(runner.model.state_dict()))
