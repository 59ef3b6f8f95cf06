"""What a runner does of a training with GammaDecayHook, on a loss that is a mean over images."""

import logging
from types import SimpleNamespace

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from normplug.norms import PN, SN, GhostBN
from tests.cases import random_input

LR, SAMPLES = 0.5, 8


class Net(nn.Module):
    """A loss that is a mean over images."""

    def __init__(self, norm, calls=1):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 1), norm
        self.head = nn.Linear(4, 2)
        self.calls = calls
        with torch.no_grad():
            self.norm.weight.normal_()
            self.norm.bias.normal_()
        self.double()

    def forward(self, x, label):
        features = self.conv(x)
        for _ in range(self.calls):
            features = self.norm(features).tanh()
        return nn.functional.cross_entropy(self.head(features.mean((2, 3))), label)


def independent():
    """A norm in which an image has nothing to do with others: by a population that stays."""
    return PN(4, momentum=0.0, warmup=0, limit=float('inf'))


class Scaled(OptimWrapper):
    """As AmpOptimWrapper, which needs a GPU to be built."""

    def __init__(self, optimizer, **options):
        super().__init__(optimizer, **options)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=64.0, growth_interval=1000)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


class Training:
    """What a runner does of a training, with the hook."""

    def __init__(self, model, hook=None, wrapper=OptimWrapper, fused=False, wd=0.0, **options):
        self.model, self.hook = model, hook
        sgd = torch.optim.SGD(model.parameters(), lr=LR, weight_decay=wd, fused=fused)
        self.optim_wrapper = wrapper(sgd, **options)
        self.hooks, self.cfg, self.iter = [SimpleNamespace(interval=0)], {}, 0
        self.logger, self.scalars = logging.getLogger('gamma decay'), {}
        self.message_hub = SimpleNamespace(
            update_scalar=lambda name, value: self.scalars.update({name: value})
        )
        if hook is not None:
            hook.before_train(self)

    def step(self, x, label, loss_factor=1.0):
        if self.hook is not None:
            self.hook.before_train_iter(self, self.iter)
        self.optim_wrapper.update_params(self.model(x, label) * loss_factor)
        if self.hook is not None:
            self.hook.after_train_iter(self)
        self.iter += 1
        return self


def batch(images, seed):
    generator = torch.Generator().manual_seed(seed)
    x = random_input((images, 3, 3, 5), torch.float64, seed)
    return x, torch.randint(2, (images,), generator=generator)


def two_norms():
    return nn.Sequential(nn.Conv2d(3, 4, 1), SN(4), nn.Sequential(SN(4), GhostBN(4)))


def runner_of(model, wrapper=None, **cfg):
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    return SimpleNamespace(
        model=model,
        optim_wrapper=wrapper or OptimWrapper(optimizer),
        cfg=cfg,
        iter=0,
        hooks=[],
        logger=logging.getLogger('gamma decay'),
    )
