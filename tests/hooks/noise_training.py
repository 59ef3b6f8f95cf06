"""A training whose layers have batches of several calls, and state outside of tensors."""

import torch
from mmengine.registry import DATASETS, MODELS
from torch import nn

from tests.hooks import tiny_training as tiny


@MODELS.register_module()
class RecurrentModel(tiny.NoisyModel):
    """A norm that runs twice, and a part whose parameters torch keeps in a list too."""

    def __init__(self, **options):
        super().__init__(**options)
        self.recurrent = nn.LSTM(4, 4)

    def forward(self, image, label, index, mode='tensor'):
        losses = super().forward(image, label, index, mode)
        if mode == 'loss':
            tokens = self.norm(self.conv(image)).flatten(2).movedim(2, 0)
            losses['recurrent_loss'] = self.recurrent(tokens)[0].square().mean()
        return losses


@DATASETS.register_module()
class DrawingDataset(tiny.NoisyDataset):
    """Draws when it is built."""

    def load_data_list(self):
        torch.rand(1)
        return super().load_data_list()


def config(work_dir, norm='SN', by_epoch=True, hook=None, hooks=(), more=(), **options):
    cfg = tiny.config(work_dir, by_epoch=by_epoch, hooks=hooks)
    # mmengine keeps one logger and one message hub an experiment name and second.
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    cfg.model = {'type': 'RecurrentModel', 'norm': norm}
    cfg.model.data_preprocessor = {'type': 'SteppingPreprocessor'}
    cfg.custom_hooks = [*cfg.custom_hooks, *more]
    if hook is not None:
        cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'BatchNoiseHook', **hook}]
    cfg.train_dataloader.dataset.type = 'DrawingDataset'
    cfg.merge_from_dict(options)
    return cfg
