"""A norm with memory that runs several times in an iteration ends the training, by name."""

from types import SimpleNamespace

import mmengine.runner.runner
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug.errors import UnsuitableModelError
from normplug.hooks import NormMemoryHook
from normplug.norms import MABN
from tests.hooks import tiny_training as tiny
from tests.hooks.decay_training import Scaled


@MODELS.register_module()
class Levels(tiny.NoisyModel):
    """A head of one norm on two levels; a block under checkpointing, which runs twice too."""

    def __init__(self, norm, of_levels='GhostBN', **options):
        super().__init__(norm=norm, **options)
        self.stem = nn.Conv2d(3, 3, 1)
        self.block = nn.Sequential(
            nn.Conv2d(3, 3, 1), MODELS.build(dict(type=norm, num_features=3))
        )
        self.shared = MODELS.build(dict(type=of_levels, num_features=3))

    def forward(self, image, label, index, mode='tensor'):
        image = self.stem(image)
        if self.training:
            image = checkpoint(self.block, image, use_reentrant=False)
            image = self.shared(image) + self.shared(2 * image)
        return super().forward(image, label, index, mode)


@MODELS.register_module()
class Crops(tiny.NoisyModel):
    """A backbone that is called for each crop; a norm in evaluation mode, for each level."""

    def __init__(self, norm, **options):
        super().__init__(norm='GhostBN', **options)
        kind = dict(type=norm, num_features=3)
        self.backbone = nn.Sequential(nn.Conv2d(3, 3, 1), MODELS.build(kind))
        self.rests = MODELS.build(kind)

    def forward(self, image, label, index, mode='tensor'):
        if self.training:
            self.rests.eval()
            image = self.backbone(image) + self.backbone(2 * image)
            image = self.rests(image) + self.rests(2 * image)
        return super().forward(image, label, index, mode)


@MODELS.register_module()
class Twice(tiny.NoisyModel):
    """A student that gets two batches, beside a teacher that gets one."""

    def __init__(self, norm, **options):
        super().__init__(norm='GhostBN', **options)
        self.student, self.teacher = (
            MODELS.build(dict(type='NoisyModel', norm=norm)) for _ in range(2)
        )

    def forward(self, image, label, index, mode='tensor'):
        if self.training:
            self.teacher(image, label, index, mode)
            self.student(image, label, index, mode)
            self.student(image, label, index, mode)
        return super().forward(image, label, index, mode)


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second

    def go(**model):
        cfg = tiny.config(tmp_path / 'work', hooks=['NormMemoryHook'])
        cfg.experiment_name = f'{tmp_path.name}-work'
        cfg.model = model
        tiny.build(cfg).train()

    return go


@pytest.mark.parametrize('kind', ['BRN', 'MABN', 'PN', 'EstBCN'])
def test_a_shared_head(train, kind, tmp_path):
    with pytest.raises(UnsuitableModelError, match=rf'{kind} normalize .* shared \(2 times\)\. '):
        train(type='Levels', norm='GhostBN', of_levels=kind)
    assert not list((tmp_path / 'work').rglob('*.pth'))


@pytest.mark.parametrize(
    'model',
    [
        dict(type='Levels', norm='MABN', of_levels='GhostBN'),
        dict(type='Levels', norm='GhostBN', of_levels='SN'),
        dict(type='Levels', norm='GhostBN', of_levels='FRN'),
        dict(type='Twice', norm='BRN'),
        dict(type='Crops', norm='BRN'),
    ],
    ids=str,
)
def test_what_is_no_shared_memory(train, model):
    train(**model)


def test_a_new_run_begins_with_empty_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)
    cfg = tiny.config(tmp_path / 'work', hooks=['NormMemoryHook'])
    cfg.experiment_name = f'{tmp_path.name}-work'
    cfg.model = dict(type='NoisyModel', norm='MABN')
    cfg.train_cfg.max_epochs = 1
    runner = tiny.build(cfg)
    norm = runner.model.norm
    norm.num_batches_tracked.fill_(500)
    norm.gradient_window.fill_(9)
    runner.train()
    assert norm.num_batches_tracked == 6
    assert norm.gradient_window.max() < 9
    assert (norm.gradient_window == 0).all(1).sum() == 16 - 6


def trained_in(wrapper, scale=1.0, growth=1.0, hook=None):
    """A model that had eight steps, of which four are averages of three; in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), MABN(4, window=3, warmup=4), nn.Flatten(), nn.Linear(64, 1)
    ).double()
    runner = SimpleNamespace(model=model, iter=0)
    runner.optim_wrapper = wrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    if wrapper is Scaled:
        options = dict(init_scale=scale, growth_factor=growth, growth_interval=1)
        runner.optim_wrapper.loss_scaler = torch.amp.GradScaler('cpu', **options)
    images = torch.randn(8, 2, 3, 6, 6, dtype=torch.float64)
    if hook:
        hook.before_train(runner)
    for image in images:
        if hook:
            hook.before_train_iter(runner)
        runner.optim_wrapper.update_params((model(image) - 1).square().mean())
        if hook:
            hook.after_train_iter(runner)
    return model, getattr(runner.optim_wrapper, 'loss_scaler', None)


def test_remembered_gradients_follow_the_scale_of_amp():
    plain, _ = trained_in(OptimWrapper)
    scaled, scaler = trained_in(Scaled, 4.0, 4.0, NormMemoryHook())
    assert scaler.get_scale() == 4.0**9
    torch.testing.assert_close(scaled[3].weight, plain[3].weight, rtol=1e-6, atol=0)
    ours = scaled[1].gradient_window / scaler.get_scale()
    torch.testing.assert_close(ours, plain[1].gradient_window, rtol=1e-6, atol=0)

    mixed, _ = trained_in(Scaled, 4.0, 4.0)
    assert not torch.allclose(mixed[3].weight, plain[3].weight, rtol=1e-3)
    trained_in(OptimWrapper, hook=NormMemoryHook())  # there is no scale to follow
