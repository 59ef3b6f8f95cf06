"""The segmentation configs on data of the writers: reading, scoring, training, testing."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope
from mmengine.structures import PixelData
from PIL import Image

from normplug.data.build import DigitsSettings, build_digits
from normplug.data.scene import SceneSettings
from normplug.launch.options import enable_tta
from tests.mm.norm_layers import norm_layers

pytest.importorskip('mmseg')

ROOT = Path(__file__).parents[2]
FCN = ROOT / 'configs' / 'fcn'
SETTINGS = DigitsSettings(train=4, val=3, scene=SceneSettings(size=64))
FORMS = ('ade', 'cityscapes-day', 'cityscapes-night')
IGNORED = 255
all_forms = pytest.mark.parametrize('form', FORMS)


def leaf(norm, form):
    return FCN / f'fcn_r18-d8-w32_{norm}_digits-{form}.py'


def tool(name):
    spec = importlib.util.spec_from_file_location(f'{name}_tool', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with the data where the configs look for it."""
    folder = tmp_path_factory.mktemp('project')
    formats = [form.replace('-', '_') for form in FORMS]
    build_digits(folder / 'work_dirs/data/digits', formats, SETTINGS, log=lambda line: None)
    return folder


@pytest.fixture(autouse=True)
def in_the_project(project, monkeypatch):
    monkeypatch.chdir(project)
    # For its log, mmengine asks the compilers for their versions: a second each time.
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


def dataset(cfg, phase):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(cfg[f'{phase}_dataloader'].dataset)


def labels_on_disk(form):
    """Image name → its labels as the model counts them, straight from the validation's files."""
    folder = Path('work_dirs/data/digits') / form.replace('-', '_')
    if form == 'ade':
        # 0 is not evaluated, the classes start at 1: less one, 0 is uint8's 255.
        paths = sorted((folder / 'annotations/validation').glob('*.png'))
        return {path.stem: np.asarray(Image.open(path)) - np.uint8(1) for path in paths}
    suffix = '_gtFine_labelTrainIds.png'
    return {
        path.name.replace(suffix, '_leftImg8bit'): np.asarray(Image.open(path))
        for path in sorted((folder / 'gtFine/val').rglob(f'*{suffix}'))
    }


@all_forms
def test_the_data_is_read(form):
    cfg = Config.fromfile(leaf('sn', form))
    assert len(dataset(cfg, 'train')) == SETTINGS.train
    for sample in dataset(cfg, 'train'):
        assert sample['inputs'].shape[0] == 3
        assert set(sample['data_samples'].gt_sem_seg.data.unique().tolist()) <= {*range(11), 255}
    truth = labels_on_disk(form)
    for phase in ('val', 'test'):
        read = dataset(cfg, phase)
        assert len(read.metainfo['classes']) == cfg.model.decode_head.num_classes == 11
        labels = {
            Path(s['data_samples'].img_path).stem: s['data_samples'].gt_sem_seg.data for s in read
        }
        assert labels.keys() == truth.keys()
        for name, label in labels.items():
            assert np.array_equal(label.squeeze().numpy(), truth[name])


def test_the_domains_hold_other_pictures_of_the_same_form():
    day, night = (Config.fromfile(leaf('sn', form)) for form in FORMS[1:])
    assert day.model == night.model
    for phase in ('train', 'val', 'test'):
        one, other = day[f'{phase}_dataloader'].dataset, night[f'{phase}_dataloader'].dataset
        assert one.pop('data_root') == 'work_dirs/data/digits/cityscapes_day/'
        assert other.pop('data_root') == 'work_dirs/data/digits/cityscapes_night/'
        assert one == other


@all_forms
@pytest.mark.parametrize('wrong', [0, 200], ids=['perfect', 'partly wrong'])
def test_score_of_known_predictions(form, wrong):
    """100 mIoU for the labels as the files hold them; less once pixels of each class are wrong."""
    cfg = Config.fromfile(leaf('sn', form))
    data = dataset(cfg, 'test')
    with DefaultScope.overwrite_default_scope('mmseg'):
        metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = data.metainfo
    truth = labels_on_disk(form)
    for sample in data:
        sample = sample['data_samples']
        prediction = torch.tensor(truth[Path(sample.img_path).stem].astype(int))
        # What is predicted where the labels say nothing does not count.
        ignored = prediction == IGNORED
        prediction[ignored] = torch.randint(11, (int(ignored.sum()),))
        places = (~ignored).nonzero()[:wrong].T
        prediction[tuple(places)] = (prediction[tuple(places)] + 1) % 11
        sample.set_data({'pred_sem_seg': PixelData(data=prediction[None])})
        metric.process({}, [sample.to_dict()])
    scores = metric.evaluate(len(data))
    if wrong:
        assert scores['mIoU'] < 95
        counted = sum((label != IGNORED).sum() for label in truth.values())
        assert scores['aAcc'] == pytest.approx(100 - 100 * wrong * len(data) / counted, abs=0.01)
    else:
        assert (scores['mIoU'], scores['aAcc'], scores['mAcc']) == (100, 100, 100)


@all_forms
@pytest.mark.parametrize('norm', ['syncbn', 'gn', 'sn'])
def test_multi_scale_testing_wraps_the_same_model(norm, form):
    cfg = Config.fromfile(leaf(norm, form))
    with DefaultScope.overwrite_default_scope('mmseg'):
        plain = MODELS.build(cfg.model)
        enable_tta(cfg)
        wrapped = MODELS.build(cfg.model)
    assert type(wrapped).__name__ == 'SegTTAModel'
    assert norm_layers(wrapped.module) == norm_layers(plain)


@all_forms
def test_views_of_multi_scale_testing(form):
    cfg = Config.fromfile(leaf('sn', form))
    (single,) = [step.scale for step in cfg.test_pipeline if step.type == 'Resize']
    enable_tta(cfg)
    for sample in dataset(cfg, 'test'):
        sides = [tuple(view.shape[1:]) for view in sample['inputs']]
        assert sides == [(factor * single[0],) * 2 for factor in (0.75, 1, 1.25)]
        for view in sample['data_samples']:
            assert view.gt_sem_seg.shape == view.ori_shape == (64, 64)


@all_forms
def test_no_digit_is_mirrored(form):
    assert 'Flip' not in Config.fromfile(leaf('sn', form)).pretty_text


def save_pretraining(norm):
    """An untrained checkpoint where the pretraining of this norm would put its last one."""
    cfg = Config.fromfile(ROOT / f'configs/pretrain/resnet18-w32_{norm}_digits.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    path = Path(f'work_dirs/resnet18-w32_{norm}_digits/epoch_3.pth')
    path.parent.mkdir()
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('norm', 'pretrained', 'form', 'tested_on'),
    [('sn', 'sn', 'ade', ['ade']), ('syncbn', 'bn', 'cityscapes-day', FORMS[1:])],
)
def test_train_then_test_at_one_and_at_several_scales(norm, pretrained, form, tested_on):
    save_pretraining(pretrained)
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'param_scheduler.1.end=60']
    options += ['default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1']
    config = leaf(norm, form)
    assert tool('train')([str(config), '--cfg-options', *options]) == 0
    checkpoint = f'work_dirs/{config.stem}/iter_2.pth'
    for domain in tested_on:
        for more in ([], ['--tta']):
            out = Path('out', domain, *more)
            argv = [str(leaf(norm, domain)), checkpoint, '--out', str(out), *more]
            assert tool('test')(argv) == 0
            assert_label_maps(out, domain)
            assert set(scores_in_log(leaf(norm, domain).stem)) == {'aAcc', 'mIoU', 'mAcc'}


def scores_in_log(name):
    """The scores of the last test in this work dir, as mmengine wrote them."""
    path = max(Path('work_dirs', name).glob('*/*.json'), key=lambda path: path.stat().st_mtime_ns)
    scores = Config.fromfile(path)
    return {key: value for key, value in scores.items() if key in ('aAcc', 'mIoU', 'mAcc')}


def assert_label_maps(folder, form):
    """One PNG an image in the labels of the form: ADE20K's start at 1, 0 is never predicted."""
    maps = {path.stem: Image.open(path) for path in folder.glob('*.png')}
    assert maps.keys() == labels_on_disk(form).keys()
    first = 1 if form == 'ade' else 0
    for image in maps.values():
        assert (image.mode, image.size) == ('L', (64, 64))
        assert {*np.unique(image)} <= {*range(first, first + 11)}
