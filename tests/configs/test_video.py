"""The rows of Table 6 have the published recipe, and their twins the weights of their norm."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import TRANSFORMS, DefaultScope

from normplug import link_kalman, set_backend
from normplug.ops.backend import get_backend
from tests.configs import rows_video
from tests.configs.loading import build, load

pytest.importorskip('mmaction')

FULL = list(rows_video.TWINS)


def norm_of(name):
    return name.split('_')[2]


def clips_of(name):
    return int(name.split('xb')[1].split('_')[0])


@pytest.mark.parametrize('name', FULL)
def test_schedule(name):
    cfg, clips = load(name), clips_of(name)
    assert cfg.train_dataloader.batch_size == clips
    assert cfg.auto_scale_lr.base_batch_size == 8 * clips
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.lr == 0.01 * clips / 8
    assert (optimizer.type, optimizer.momentum, optimizer.weight_decay) == ('SGD', 0.9, 1e-4)
    (steps,) = cfg.param_scheduler
    assert (steps.type, steps.milestones, steps.gamma) == ('MultiStepLR', [40, 80], 0.1)
    assert cfg.train_cfg.max_epochs == steps.end == 100
    # GhostBN needs whole pairs.
    assert cfg.train_dataloader.get('drop_last', False) == (norm_of(name) == 'ghost-bn')


@pytest.mark.parametrize('name', [*FULL, *rows_video.TWINS.values()])
def test_a_training_ends_with_an_evaluation_and_a_checkpoint(name):
    cfg = load(name)
    hook = cfg.default_hooks.checkpoint
    assert cfg.train_cfg.max_epochs % cfg.train_cfg.val_interval == 0
    assert cfg.train_cfg.max_epochs % hook.interval == 0
    assert (hook.type, hook.save_best) == ('ResumableCheckpointHook', None)


def frames(sampling, total):
    with DefaultScope.overwrite_default_scope('mmaction'):
        made = TRANSFORMS.build(sampling)({'total_frames': total, 'start_index': 0})
    return made['frame_inds'].reshape(made['num_clips'], -1)


def test_clips_of_32_frames_at_interval_2():
    cfg = load('i3d/i3d_r50_sn_8xb8_kinetics.py')
    (train,), (one,) = (
        frames(loader.dataset.pipeline[1], 300)
        for loader in (cfg.train_dataloader, cfg.val_dataloader)
    )
    assert (train[1:] - train[:-1] == 2).all()
    assert len(train) == len(one) == 32
    ten = frames(cfg.test_dataloader.dataset.pipeline[1], 300)
    assert ten.shape == (10, 32)
    # Spread evenly from the first frame to the last.
    assert ten[0, 0] == 0
    assert ten[-1, -1] == 299
    assert set(ten[1:, 0] - ten[:-1, 0]) <= {26, 27}
    assert cfg.model.cls_head.average_clips == 'prob'


def test_the_twin_has_a_quarter_of_the_frames_over_half_of_their_time():
    cfg = load('i3d/i3d_r18-w32_sn_1xb8_digits.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        sampling = loader.dataset.pipeline[1]
        assert (sampling.clip_len, sampling.frame_interval) == (8, 4)


@pytest.mark.parametrize('name', FULL)
def test_pixels_and_initial_weights_are_of_the_norm(name):
    cfg, twin = load(name), load(rows_video.TWINS[name])
    pixels, norm = cfg.model.data_preprocessor, norm_of(name)
    start = cfg.model.backbone.init_cfg
    if norm == 'gn':  # decoders give RGB; to_rgb swaps it
        assert (pixels.mean, pixels.std) == ([103.53, 116.28, 123.675], [1, 1, 1])
        assert pixels.to_rgb
    else:
        assert (pixels.mean, pixels.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
        assert not pixels.get('to_rgb', False)
    released = {'sn': 'v1_sn_8x2', 'ssn': 'v1_ssn_8x2', 'ibn-a': '_ibn_a'}.get(norm)
    assert (start.type == 'ReleasedPretrained') == (released is not None)
    assert (released or {'gn': 'resnet50_gn'}.get(norm, '://resnet50')) in start.checkpoint
    assert cfg.model.backbone.norm_cfg.get('released_statistics', False) == (norm in ('sn', 'ssn'))
    start = twin.model.backbone.init_cfg
    own = norm.removeprefix('ghost-')
    assert start.checkpoint == f'work_dirs/resnet18-w32_{own}_1xb32_digits/epoch_9.pth'
    assert (start.type, start.prefix) == ('Pretrained', 'backbone.')
    assert load(f'imagenet/resnet18-w32_{own}_1xb32_digits.py').train_cfg.max_epochs == 9


def test_ratios_of_ssn_have_their_released_rate():
    model = build(load('i3d/i3d_r50_ssn_8xb8_kinetics.py'), values=False)
    cfg = load('i3d/i3d_r50_ssn_8xb8_kinetics.py').optim_wrapper
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in build_optim_wrapper(model, cfg).optimizer.param_groups:
        for parameter in group['params']:
            is_ratio = names[id(parameter)].endswith(('mean_weight', 'var_weight'))
            want = (pytest.approx(0.001), 0) if is_ratio else (0.01, 1e-4)
            assert (group['lr'], group['weight_decay']) == want


def test_kn_is_linked_through_3d_convolutions():
    """All but the first of the backbone, as in 2D."""
    cfg = load('i3d/i3d_r50_kn_8xb8_kinetics.py')
    cfg.model.backbone.update(base_channels=4, init_cfg=None)
    cfg.model.cls_head.in_channels = 128
    model, before = build(cfg), get_backend()
    set_backend('eager')
    try:
        reports = link_kalman(model, lambda: model(torch.randn(1, 1, 3, 16, 32, 32)))
    finally:
        set_backend(before)
    assert len(reports) == 53
    (first,) = (report for report in reports if not report.predecessors)
    assert first.name == 'backbone.conv1.bn'
    by_name = {report.name: report for report in reports}
    assert by_name['backbone.layer1.0.conv1.bn'].through == ('backbone.layer1.0.conv1.conv',)
    at_sum = by_name['backbone.layer1.1.conv1.bn'].predecessors
    assert at_sum == ('backbone.layer1.0.conv3.bn', 'backbone.layer1.0.downsample.bn')
