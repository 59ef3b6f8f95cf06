"""A norm with memory that runs several times in an iteration ends the training, by name."""

from types import SimpleNamespace

import mmengine.runner.runner
import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS
from torch import nn
from torch.utils.checkpoint import checkpoint

from normplug.errors import UnsuitableModelError
from normplug.hooks import NormMemoryHook
from normplug.hooks.norm_memory import CountedForwards
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


class Head(nn.Module):
    """Entered by its ``forward``, as in the ``loss`` of many heads; the norm is in a part of it."""

    def __init__(self, norm):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 3, 1), norm)

    def forward(self, levels):
        return sum(self.tower(level) for level in levels)

    def loss(self, levels):
        return self.forward(levels)


@MODELS.register_module()
class Headed(tiny.NoisyModel):
    """A head with a norm, on some levels."""

    def __init__(self, norm, levels, **options):
        super().__init__(norm='GhostBN', **options)
        self.shared = Head(MODELS.build(dict(type=norm, num_features=3)))
        self.levels = levels

    def forward(self, image, label, index, mode='tensor'):
        if self.training:
            image = self.shared.loss([image * (k + 1) for k in range(self.levels)])
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


def test_a_shared_head_that_is_entered_by_its_forward(train):
    with pytest.raises(UnsuitableModelError, match=r'shared\.tower\.1 \(2 times\)\. '):
        train(type='Headed', norm='BRN', levels=2)


@pytest.mark.parametrize('own', [False, True])
def test_counted_forwards_leave_nothing(own):
    model = nn.Sequential(nn.ReLU(), nn.Flatten())
    if own:
        model[0].forward = torch.sin
    before = [vars(layer).copy() for layer in model.modules()]
    told = []
    counted = CountedForwards(model, lambda name, layer: told.append((name, layer)))
    x = torch.randn(2, 3)
    y = model(x)
    counted.remove()
    assert told == [('', model), ('0', model[0]), ('1', model[1])]
    assert [vars(layer) for layer in model.modules()] == before
    torch.testing.assert_close(y, x.sin() if own else x.relu(), rtol=0, atol=0)
    model(x)
    assert len(told) == 3


@pytest.mark.parametrize(
    'model',
    [
        dict(type='Levels', norm='MABN', of_levels='GhostBN'),
        dict(type='Levels', norm='GhostBN', of_levels='SN'),
        dict(type='Levels', norm='GhostBN', of_levels='FRN'),
        dict(type='Twice', norm='BRN'),
        dict(type='Crops', norm='BRN'),
        dict(type='Headed', norm='BRN', levels=1),
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


def trained(*wrappers, hooked=True, in_dict=False):
    """A model that had eight steps, in float64; the last are by averages of three batches.

    Args:
        wrappers: of the optimizers of as many trainings, each of which resumes the last.
        hooked: whether they have the hook.
        in_dict: whether each is in a dict, as the only one.
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), MABN(4, window=3, warmup=4), nn.Flatten(), nn.Linear(64, 1)
    ).double()
    batches = torch.randn(8, 2, 3, 6, 6, dtype=torch.float64).split(8 // len(wrappers))
    seen = 0
    for wrapper, images in zip(wrappers, batches, strict=True):
        hooks = [NormMemoryHook()] if hooked else []
        runner = SimpleNamespace(model=model, iter=seen)
        runner.optim_wrapper = own = wrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        if in_dict:
            runner.optim_wrapper = OptimWrapperDict(own=own)
        for hook in hooks:
            hook.before_train(runner)
        for image in images:
            for hook in hooks:
                hook.before_train_iter(runner)
            own.update_params((model(image) - 1).square().mean())
            for hook in hooks:
                hook.after_train_iter(runner)
        for hook in hooks:
            hook.after_train(runner)
        seen += len(images)
    return model


def growing(optimizer):
    """AMP whose loss scale is four times as large in each step."""
    wrapper = Scaled(optimizer)
    options = dict(init_scale=4.0, growth_factor=4.0, growth_interval=1)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', **options)
    return wrapper


@pytest.mark.parametrize(
    'wrappers',
    [(growing,), (growing, OptimWrapper), (OptimWrapper, growing), (OptimWrapper,)],
    ids=['AMP', 'then without', 'then with', 'without'],
)
@pytest.mark.parametrize('in_dict', [False, True])
def test_remembered_gradients_have_no_scale_of_amp(wrappers, in_dict):
    plain = trained(OptimWrapper, hooked=False)
    found = trained(*wrappers, in_dict=in_dict)
    assert plain[1].gradient_window.abs().min() > 0
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize('wrapper', [growing, OptimWrapper])
def test_several_optimizers_have_several_scales(wrapper):
    model = torch.nn.Sequential(MABN(2), nn.ReLU())
    optimizers = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
    both = OptimWrapperDict(**{str(k): wrapper(one) for k, one in enumerate(optimizers)})
    runner = SimpleNamespace(model=model, iter=0, optim_wrapper=both)
    if wrapper is OptimWrapper:
        NormMemoryHook().before_train(runner)
    else:
        with pytest.raises(UnsuitableModelError, match='loss scales of 2 optimizers'):
            NormMemoryHook().before_train(runner)


def test_without_the_hook_scales_are_mixed():
    """Else the test above could not fail."""
    plain, mixed = trained(OptimWrapper, hooked=False), trained(growing, hooked=False)
    assert not torch.allclose(mixed[3].weight, plain[3].weight, rtol=1e-3)


@pytest.mark.parametrize(('conv', 'told'), [(None, True), (dict(type='CenConv'), False)])
def test_uncentred_convolutions_are_named(conv, told, train, tmp_path):
    train(type='NoisyModel', norm='MABN', conv=conv)
    assert ('1 MABN layers and no CenConv' in tiny.log(tmp_path / 'work')) == told
