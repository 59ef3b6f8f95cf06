"""Hooks for trainings on several processes; see ``processes.py``."""

import os
import signal
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from normplug.launch import UserError


@HOOKS.register_module()
class SaveRankHook(Hook):
    """Save what this rank has in the end, and the loss of every iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())

    def after_train(self, runner):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        found = {'losses': self.losses, 'state': model.state_dict()}
        torch.save(found, Path(runner.work_dir) / f'rank{runner.rank}.pt')


@HOOKS.register_module()
class FailHook(Hook):
    """One rank fails after an iteration, while the others go on."""

    def __init__(self, rank, iteration, how):
        self.rank, self.iteration, self.how = rank, iteration, how

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.iteration and get_rank() == self.rank:
            if self.how == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            raise UserError('one rank cannot go on')
