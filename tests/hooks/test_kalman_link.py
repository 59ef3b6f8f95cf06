"""Links are found in the first batch, and finding them leaves no trace."""

import shutil
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from normplug import link_kalman
from normplug.errors import UnsuitableModelError
from tests.hooks import tiny_training as tiny


@MODELS.register_module()
class NoisyChain(tiny.NoisyModel):
    """Two KN layers in a row; a batch norm and a momentum that a second forward would move."""

    def __init__(self, with_cp=False, **options):
        super().__init__(norm='KN', **options)
        self.with_cp = with_cp
        self.before = nn.Sequential(
            nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)
        )
        self.first = MODELS.build({'type': 'KN', 'num_features': 4})
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, image, label, index, mode='tensor'):
        image = self.first(self.before(image)).relu()
        return super().forward(image, label, index, mode)


@MODELS.register_module()
class NoisyCBN(tiny.NoisyModel):
    """A CBN behind a convolution, which a head may share over two levels."""

    def __init__(self, levels=1, **options):
        super().__init__(norm='CBN', **options)
        self.norm.burnin, self.levels = 1, levels

    def forward(self, image, label, index, mode='tensor'):
        for _ in range(self.levels - 1):
            self.norm(self.conv(image))
        return super().forward(image, label, index, mode)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second

    # NormMemoryHook as tools/train.py adds it: its counting once kept layers from being linked.
    hooks_of_training = 'SampleSeedHook', 'KalmanLinkHook', 'NormMemoryHook'

    def make(name, model='NoisyChain', hooks=hooks_of_training, **options):
        cfg = tiny.config(tmp_path / name, hooks=hooks)
        cfg.experiment_name = f'{tmp_path.name}-{name}'  # of which mmengine keeps one logger
        cfg.model = dict(type=model, **options)
        return cfg

    return make


def test_the_log_shows_the_links(config):
    cfg = config('links')
    tiny.build(cfg).train()
    log = tiny.log(cfg.work_dir)
    assert 'KN: 1 layers are predicted by others, 1 are plain batch norm:' in log
    assert '  norm ← first through conv\n' in log
    reason = 'no normalizer before it could be followed to its input'
    assert f'  first: plain batch norm, {reason}\n' in log
    assert log.count('are plain batch norm') == 1  # once a run


def test_linking_leaves_no_trace(config):
    """Weights, buffers and random numbers are as if the links had always been there."""
    by_hook = tiny.build(config('by_hook'))
    by_hook.train()
    by_hand = tiny.build(config('by_hand', hooks=('SampleSeedHook',)))
    link_kalman(by_hand.model, lambda: by_hand.model.norm(by_hand.model.conv(
        by_hand.model.first(torch.randn(2, 4, 4, 4)).relu()
    )))  # fmt: skip
    by_hand.train()
    for name, value in by_hand.model.state_dict().items():
        assert torch.equal(value, by_hook.model.state_dict()[name]), name
    assert by_hook.model.seen[0] == by_hook.model.seen[1]  # the first batch, twice
    assert by_hook.model.seen[1:] == by_hand.model.seen


def test_a_resumed_training_is_linked_again(config):
    whole = config('whole')
    tiny.build(whole).train()
    part = config('part')
    shutil.copytree(whole.work_dir, part.work_dir)
    for epoch in (3, 4):
        Path(part.work_dir, f'epoch_{epoch}.pth').unlink()
    Path(part.work_dir, 'last_checkpoint').write_text(f'{part.work_dir}/epoch_2.pth')
    tiny.build(part, resume=True).train()
    tiny.assert_same_training(
        tiny.load(part.work_dir, 'epoch_4.pth'), tiny.load(whole.work_dir, 'epoch_4.pth')
    )


def test_a_resumed_training_of_cbn_remembers(config):
    whole = config('whole', model='NoisyCBN')
    runner = tiny.build(whole)
    runner.train()
    assert '  norm ← conv\n' in tiny.log(whole.work_dir)
    assert len(runner.model.norm.history.entries) == 3
    part = config('part', model='NoisyCBN')
    shutil.copytree(whole.work_dir, part.work_dir)
    for epoch in (3, 4):
        Path(part.work_dir, f'epoch_{epoch}.pth').unlink()
    Path(part.work_dir, 'last_checkpoint').write_text(f'{part.work_dir}/epoch_2.pth')
    tiny.build(part, resume=True).train()
    tiny.assert_same_training(
        tiny.load(part.work_dir, 'epoch_4.pth'), tiny.load(whole.work_dir, 'epoch_4.pth')
    )


def test_a_cbn_shared_over_levels_is_refused(config):
    message = r'KalmanLinkHook: norm: this CBN runs several times in a forward'
    with pytest.raises(UnsuitableModelError, match=message):
        tiny.build(config('shared', model='NoisyCBN', levels=2)).train()


def test_without_the_hook(config):
    with pytest.raises(ValueError, match=r'never linked .*KalmanLinkHook'):
        tiny.build(config('without', hooks=('SampleSeedHook',))).train()


def test_without_kn(config):
    with pytest.raises(UnsuitableModelError, match='the model has no KN or CBN; remove the hook'):
        tiny.build(config('sn', model='NoisyModel')).train()


def test_activation_checkpointing_is_refused(config):
    with pytest.raises(UnsuitableModelError, match='with_cp=True runs its KN layers again'):
        tiny.build(config('cp', with_cp=True)).train()
