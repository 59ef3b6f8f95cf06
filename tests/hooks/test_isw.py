"""ISW in a training of mmseg: when the loss begins, which masks are found, what resumes."""

import re

import mmengine.runner.runner
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch.nn import functional as F
from torch.utils.checkpoint import set_checkpoint_early_stop

from normplug.errors import UnsuitableModelError
from normplug.hooks import ISWHook
from normplug.models.isw_layer import ISW
from tests.hooks import tiny_training as tiny
from tests.hooks.isw_training import (
    BEGIN,
    END,
    PLACES,
    UNFORMATTED,
    WATCH,
    Darken,
    StateHook,
    config,
    trained,
    without_formatting,
)
from tests.test_isw import brute_force, by_hand

pytest.importorskip('mmseg')


@pytest.fixture(autouse=True)
def what_takes_time_and_does_not_matter(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second
    monkeypatch.setattr(Config, 'pretty_text', UNFORMATTED)  # yapf


@pytest.mark.slow
def test_the_loss_is_zero_before_the_masks_and_then_as_written(tmp_path):
    runner, watch = trained(config(tmp_path / 'work', WATCH))
    assert [n for n, m in runner.model.named_modules() if isinstance(m, ISW)] == PLACES
    assert [float(losses['loss_isw']) for losses in watch.losses[:BEGIN]] == [0] * BEGIN
    assert all(not mask.any() for masks in watch.masks[: BEGIN - 1] for mask in masks)
    for masks in watch.masks[BEGIN:]:
        assert all(map(torch.equal, masks, watch.masks[BEGIN - 1]))
    for step in range(BEGIN, END):
        maps = watch.seen[len(PLACES) * step :][: len(PLACES)]
        of_layers = [
            by_hand(F.instance_norm(x.double()).numpy(), mask)
            for x, mask in zip(maps, watch.masks[step], strict=True)
            if mask.any()
        ]
        want = 0.6 * sum(of_layers) / len(PLACES)
        assert want > 0
        assert watch.losses[step]['loss_isw'].item() == pytest.approx(want, rel=1e-4)
    log = tiny.log(tmp_path / 'work')
    assert re.search(r'ISW: \d+ of 28 pairs of backbone.layer2.1.IN', log)
    # Nothing is left on the model.
    assert not any('ISWHook' in str(h) for h in runner.model._forward_hooks.values())


@pytest.mark.slow
def test_the_masks_are_those_of_the_pairs(tmp_path):
    """Each image, and its darker copy: the unbiased variance of Ψ, averaged, clustered."""
    watch_state = dict(type='StateHook')
    cfg = config(tmp_path / 'work', WATCH, watch_state, photometric=[dict(type='Darken')], trials=1)
    runner, watch = trained(cfg)
    model = runner.model
    model.load_state_dict(next(h for h in runner.hooks if isinstance(h, StateHook)).state)
    model.eval()
    dataset = runner.val_dataloader.dataset
    variances = {name: [] for name in PLACES}
    maps = {}
    for name in PLACES:
        model.get_submodule(name).register_forward_hook(
            lambda layer, x, y, name=name: maps.setdefault(name, []).append(x[0].double())
        )
    for i in range(len(dataset)):
        maps.clear()
        image = dataset[i]['inputs']
        dark = Darken()(dict(img=image.permute(1, 2, 0).numpy()))['img']
        for pixels in (image, torch.from_numpy(dark).permute(2, 0, 1)):
            data = model.data_preprocessor(dict(inputs=[pixels]), False)
            with torch.no_grad():
                model(data['inputs'], mode='tensor')
        for name, (one, other) in maps.items():
            z = F.instance_norm(torch.cat([one, other])).flatten(2)
            psi = z @ z.mT / (z.shape[2] - 1)
            variances[name].append((psi[0] - psi[1]) ** 2 / 2)
    for name, mask in zip(PLACES, watch.masks[-1], strict=True):
        mean = torch.stack(variances[name]).mean(0).triu(1)
        distinct = np.unique(mean.numpy())
        weights = np.array([(mean.numpy() == value).sum() for value in distinct])
        bound = brute_force(np.repeat(distinct, weights), 3)
        assert torch.equal(mask, mean > bound), name


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_last_bit(tmp_path):
    """Once before the masks are found, once after."""
    options = dict(prepare=without_formatting)
    assert tiny.train_apart(config(tmp_path / 'alone'), **options) == 0
    cfg = config(tmp_path / 'killed')
    assert tiny.train_apart(cfg, kill_before=BEGIN, **options) == -9
    assert tiny.train_apart(cfg, resume=True, kill_before=BEGIN + 2, **options) == -9
    assert tiny.train_apart(cfg, resume=True, **options) == 0
    one, other = (tiny.load(tmp_path / name) for name in ('alone', 'killed'))
    assert other['state_dict']['backbone.bn1.mask'].any()
    tiny.assert_same_training(one, other)


@pytest.mark.slow
def test_finding_masks_changes_nothing_else(tmp_path):
    """With weight 0, the training is that without the hook, and dropout draws the same."""
    trained(config(tmp_path / 'with', weight=0))
    cfg = config(tmp_path / 'without')
    cfg.custom_hooks = cfg.custom_hooks[:1]
    trained(cfg)
    one, other = (tiny.load(tmp_path / name)['state_dict'] for name in ('with', 'without'))
    for name in one:
        if not name.endswith('.mask'):
            assert torch.equal(one[name], other[name]), name


@pytest.mark.slow
@pytest.mark.parametrize('wrapper', ['plain', 'accumulated', 'amp'])
def test_checkpointed_blocks_count_once(tmp_path, wrapper):
    found = {}
    for with_cp in (False, True):
        cfg = config(tmp_path / str(with_cp), WATCH, with_cp=with_cp)
        if wrapper == 'accumulated':
            cfg.optim_wrapper.accumulative_counts = 2
        if wrapper == 'amp':
            cfg.optim_wrapper.type = 'AutocastWrapper'
        with set_checkpoint_early_stop(False):  # the whole block is run again
            _, watch = trained(cfg)
        losses = [losses['loss_isw'] for losses in watch.losses]
        assert {loss.dtype for loss in losses} == {torch.float32}
        found[with_cp] = [float(loss) for loss in losses]
    assert found[False][-1] > 0
    assert found[True] == pytest.approx(found[False], rel=1e-3)


def test_wrong_arguments():
    with pytest.raises(ValueError, match='ISWHook: begin must be an integer from 1, got 0'):
        ISWHook(begin=0)
    with pytest.raises(ValueError, match='clusters must be an integer from 2, got 1'):
        ISWHook(begin=1, clusters=1)
    with pytest.raises(ValueError, match='weight must be a number from 0, got -1'):
        ISWHook(begin=1, weight=-1)


def test_a_model_without_isw(tmp_path):
    with pytest.raises(UnsuitableModelError, match='the model has no ISW layer'):
        trained(config(tmp_path / 'work', entry='b'))


@pytest.mark.slow
def test_resumed_without_masks(tmp_path):
    cfg = config(tmp_path / 'work', begin=END + 1)
    trained(cfg)
    assert 'begin=7 is not before the end, iteration 6' in tiny.log(tmp_path / 'work')
    cfg = config(tmp_path / 'work', begin=2)
    cfg.experiment_name += '-again'
    cfg.train_cfg.max_iters += 2
    runner = tiny.build(cfg, resume=True)
    with pytest.raises(UnsuitableModelError, match='iteration 6 has no masks'):
        runner.train()


@pytest.mark.slow
def test_what_the_masks_need_is_checked_before_the_first_iteration(tmp_path):
    cfg = config(tmp_path / 'work')
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    runner = tiny.build(cfg)
    with pytest.raises(ValueError, match='val_dataloader has no dataset with a pipeline'):
        runner.train()
    assert runner.iter == 0
    runner = tiny.build(config(tmp_path / 'other', photometric=[dict(type='NoSuchTransform')]))
    with pytest.raises(KeyError, match='NoSuchTransform'):
        runner.train()
    assert runner.iter == 0


def test_a_layer_of_a_batch_norms_checkpoint():
    layer = ISW(4)
    state = torch.nn.BatchNorm2d(4).state_dict()
    state['weight'].fill_(3)
    with pytest.warns(UserWarning, match='Nothing of it is used'):
        layer.load_state_dict(dict(state, mask=layer.mask))
    assert list(layer.state_dict()) == ['mask']
    assert not list(layer.parameters())
    x = torch.randn(2, 4, 5, 5) * 3 + 1
    torch.testing.assert_close(layer(x), F.instance_norm(x))


def test_a_loss_without_a_gradient_is_refused():
    """Reentrant checkpointing runs the layer without one first, and throws the second loss away."""
    layer, hook = ISW(4), ISWHook(begin=1)
    layer.mask[0, 1] = True
    hook._is_on = True
    layer.register_forward_hook(hook._record)
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    y.sum().backward()
    hook._begin()
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match=r'ISWHook: .* use_reentrant=False'):
        y.sum().backward()
