"""The segmentation rows at full scale have the published recipes."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image

from tests.configs import rows_segmentation
from tests.configs.loading import CONFIGS, build, load

pytest.importorskip('mmseg')

FULL = list(rows_segmentation.TWINS)
TABLE_5 = [name for name in FULL if name.startswith('fcn/')]
TABLE_6 = [name for name in FULL if name.startswith('ibn_gta5/')]
ADE = [name for name in TABLE_5 if 'ade20k' in name]


def transformed(pipeline, tmp_path, size, **sample):
    """What a pipeline makes of an image and a map of labels of (width, height)."""
    Image.new('RGB', size).save(tmp_path / 'image.png')
    Image.new('L', size, 3).save(tmp_path / 'labels.png')
    paths = {name: str(tmp_path / f'{name}.png') for name in ('image', 'labels')}
    result = {'img_path': paths['image'], 'seg_map_path': paths['labels'], 'seg_fields': []}
    result |= {'reduce_zero_label': False, **sample}
    with DefaultScope.overwrite_default_scope('mmseg'):
        for step in pipeline:
            result = TRANSFORMS.build(step)(result)
    return result


@pytest.mark.parametrize('name', FULL)
def test_the_network(name):
    """ResNet-50 of the original stem at stride 8; stages 3 and 4 dilated by 2 and 4."""
    cfg = load(name)
    model = build(cfg).eval()
    net = model.backbone
    assert (net.conv1.kernel_size, net.conv1.stride) == ((7, 7), (2, 2))
    dilations = [[b.conv2.dilation[0] for b in getattr(net, f'layer{i}')] for i in range(1, 5)]
    assert dilations == [[1] * 3, [1] * 4, [1] + [2] * 5, [2, 4, 4]]
    with torch.no_grad():
        assert [f.shape[-1] for f in net(torch.zeros(1, 3, 64, 64))] == [16, 8, 8, 8]
    # Strides are on the 3x3.
    assert (net.layer2[0].conv1.stride, net.layer2[0].conv2.stride) == ((1, 1), (2, 2))
    classes = 150 if 'ade20k' in name else 19
    width = 512 if name in TABLE_5 else 256
    for head, source, channels, weight in (
        (model.decode_head, 2048, 512, 1.0),
        (model.auxiliary_head, 1024, width, 0.4),
    ):
        (block,) = head.convs
        assert not head.concat_input
        assert block.conv.weight.shape == (channels, source, 3, 3)
        assert head.conv_seg.weight.shape == (classes, channels, 1, 1)
        assert head.loss_decode.loss_weight == weight
        assert (head.dropout is None) is (name in TABLE_5)


@pytest.mark.parametrize('name', TABLE_5)
def test_rates_and_decays_of_table_5(name):
    cfg = load(name)
    model = build(cfg)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert type(optimizer).__name__ == 'SGD'
    decayed = set()
    for group in optimizer.param_groups:
        assert group['momentum'] == 0.9
        assert group['lr'] == (0.02 if name in ADE else 0.01)
        for parameter in group['params']:
            assert group['weight_decay'] in (0, 1e-4)
            if group['weight_decay']:
                decayed.add(names[id(parameter)])
    convolutions = {f'{n}.weight' for n, m in model.named_modules() if type(m) is torch.nn.Conv2d}
    assert decayed == convolutions


@pytest.mark.parametrize('name', FULL)
def test_the_last_iteration_is_tested_and_saved(name):
    cfg = load(name)
    iterations = cfg.train_cfg.max_iters
    (poly,) = cfg.param_scheduler
    assert (poly.begin, poly.end, poly.by_epoch) == (0, iterations, False)
    assert iterations % cfg.train_cfg.val_interval == 0
    assert iterations % cfg.default_hooks.checkpoint.interval == 0


@pytest.mark.parametrize('name', TABLE_6)
def test_mmsegs_schedule_of_table_6(name):
    cfg = load(name)
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005
    )
    (poly,) = cfg.param_scheduler
    assert (poly.type, poly.power, poly.eta_min, poly.end) == ('PolyLR', 0.9, 1e-4, 80_000)


@pytest.mark.parametrize('name', FULL)
def test_pixels_are_scaled_as_for_the_initial_weights(name):
    pixels = load(name).model.data_preprocessor
    if '_gn_' in name:
        assert (pixels.mean, pixels.std) == ([103.53, 116.28, 123.675], [1, 1, 1])
        assert not pixels.bgr_to_rgb
    else:
        assert (pixels.mean, pixels.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
        assert pixels.bgr_to_rgb


@pytest.mark.parametrize(('name', 'twin'), rows_segmentation.TWINS.items())
def test_initial_weights_at_digits_scale_are_those_of_the_norm(name, twin):
    assert load(name).model.pretrained is None
    norm = name.split('/')[1].split('_')[2].removeprefix('sync')
    init = load(twin).model.backbone.init_cfg
    assert init.checkpoint == f'work_dirs/resnet18-w32_{norm}_1xb32_digits/epoch_9.pth'
    assert init.prefix == 'backbone.'


@pytest.mark.parametrize('name', ADE)
def test_images_of_ade20k(name, tmp_path):
    cfg = load(name)
    sides = set()
    for _ in range(40):
        made = transformed(cfg.train_pipeline, tmp_path, (683, 512), reduce_zero_label=True)
        height, width = made['inputs'].shape[1:]
        assert width == round(height * 683 / 512)  # the whole image
        assert made['data_samples'].gt_sem_seg.data.unique().tolist() == [2]
        sides.add(height)
    assert sides == {300, 375, 450, 525, 575}
    # A long one stops at 1000.
    made = transformed(cfg.test_pipeline, tmp_path, (2000, 500), reduce_zero_label=True)
    assert made['inputs'].shape[1:] == (250, 1000)
    made = transformed(cfg.test_pipeline, tmp_path, (683, 512), reduce_zero_label=True)
    assert made['inputs'].shape[1:] == (450, 600)
    assert made['data_samples'].gt_sem_seg.shape == (512, 683)
    views = transformed(cfg.tta_pipeline, tmp_path, (683, 512), reduce_zero_label=True)
    assert [view.shape[1] for view in views['inputs']] == [300, 400, 500, 600]
    assert not any(view.metainfo.get('flip') for view in views['data_samples'])
    assert cfg.model.data_preprocessor.size_divisor == 8


def test_images_of_cityscapes_in_table_5(tmp_path):
    cfg = load('fcn/fcn_r50-d8_sn_cityscapes.py')
    made = transformed(cfg.train_pipeline, tmp_path, (2048, 1024))['inputs']
    assert max(made.shape[1:]) <= 713
    assert cfg.model.data_preprocessor.size == (713, 713)
    assert transformed(cfg.test_pipeline, tmp_path, (2048, 1024))['inputs'].shape[1:] == (
        1024,
        2048,
    )
    views = transformed(cfg.tta_pipeline, tmp_path, (204, 102))
    assert [view.shape[1] for view in views['inputs']] == [102, 128, 153, 179]


@pytest.mark.parametrize('norm', ['syncbn', 'ibn-a', 'ibn-b'])
def test_images_of_table_6(norm, tmp_path):
    """GTA5's are read in tests/datasets/test_gta5.py."""
    cfg = load(f'ibn_gta5/fcn_r50-d8_{norm}_table6_cityscapes.py')
    other = load(f'ibn_gta5/fcn_r50-d8_{norm}_table6_gta5.py')
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        assert transformed(pipeline, tmp_path, (2048, 1024))['inputs'].shape[1:] == (512, 1024)
    assert cfg.model == other.model
    for evaluator in (cfg.val_evaluator, other.val_evaluator):
        assert (evaluator.type, evaluator.iou_metrics) == ('IoUMetric', ['mIoU'])


@pytest.mark.parametrize('norm', ['syncbn', 'gn', 'sn'])
def test_the_test_server_gets_the_same_model(norm):
    val = load(f'fcn/fcn_r50-d8_{norm}_cityscapes.py')
    test = load(f'fcn/fcn_r50-d8_{norm}_cityscapes_test-server.py')
    assert val.model == test.model
    for pipeline in ('test_pipeline', 'tta_pipeline'):
        want = _without_labels(val[pipeline])
        found = test.test_dataloader.dataset.pipeline if 'test' in pipeline else test[pipeline]
        assert _without_labels(found) == want
        assert 'LoadAnnotations' not in str(found)
    assert test.test_dataloader.dataset.data_prefix == dict(img_path='leftImg8bit/test')


def _without_labels(pipeline):
    """Plain steps, without those that load labels, nested lists that become empty too."""
    if isinstance(pipeline, dict):
        kept = {key: _without_labels(value) for key, value in pipeline.items()}
        return {key: value for key, value in kept.items() if key != '_scope_'}
    if isinstance(pipeline, (list, tuple)):
        kept = [_without_labels(v) for v in pipeline if not _loads_labels(v)]
        return [value for value in kept if value != []]
    return pipeline


def _loads_labels(step):
    return isinstance(step, dict) and step.get('type') == 'LoadAnnotations'


@pytest.mark.parametrize(('full', 'digits'), rows_segmentation.TWINS.items())
def test_no_digit_is_mirrored(full, digits):
    for pipeline, prob in ((load(full).train_pipeline, 0.5), (load(digits).train_pipeline, 0.0)):
        assert [step.prob for step in pipeline if step.type == 'RandomFlip'] == [prob]
    assert np.all(
        ['Flip' not in str(load(digits)[key]) for key in ('test_pipeline', 'tta_pipeline')]
    )


def test_configs_are_loaded_once_more_from_their_own_text(tmp_path):
    """What the work dir keeps of a run is the same config."""
    for name in (FULL[0], *rows_segmentation.TWINS.values()):
        cfg = Config.fromfile(CONFIGS / name)
        cfg.dump(tmp_path / 'dumped.py')
        assert Config.fromfile(tmp_path / 'dumped.py').model == cfg.model
