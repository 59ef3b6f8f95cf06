"""A norm with memory that runs several times in an iteration ends the training, by name."""

import mmengine.runner.runner
import pytest
from mmengine.registry import MODELS
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug.errors import UnsuitableModelError
from tests.hooks import tiny_training as tiny


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
