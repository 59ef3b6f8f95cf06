"""What is written for the test server of Cityscapes."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS, MODELS, DefaultScope
from PIL import Image

from normplug.data.build import DigitsSettings, build_digits
from normplug.data.scene import SceneSettings
from normplug.errors import TrainingError
from tests.configs.test_configs import CONFIGS

pytest.importorskip('mmseg')

# Cityscapes' own table, in the order of the train ids.
LABEL_IDS = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
CLASSES = tuple(f'class {i}' for i in range(19))


def metric(kind='CityscapesIoUMetric', **arguments):
    import normplug.datasets  # noqa: F401

    with DefaultScope.overwrite_default_scope('mmseg'):
        built = METRICS.build({'type': kind, **arguments})
    built.dataset_meta = {'classes': CLASSES}
    return built


def samples():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            'img_path': f'leftImg8bit/test/alba/alba_{i:06d}_000019_leftImg8bit.png',
            'pred_sem_seg': {'data': torch.randint(19, (1, 6, 9), generator=generator)},
            'gt_sem_seg': {'data': torch.randint(19, (1, 6, 9), generator=generator)},
        }
        for i in range(3)
    ]


def test_label_ids_are_written(tmp_path):
    writer = metric(output_dir=str(tmp_path / 'new/folder'), format_only=True)
    batch = samples()
    for sample in batch:
        del sample['gt_sem_seg']  # the test set has none
    writer.process({}, batch)
    assert writer.evaluate(3) == {}
    paths = sorted((tmp_path / 'new/folder').iterdir())
    assert [path.name for path in paths] == [Path(s['img_path']).name for s in batch]
    for path, sample in zip(paths, batch, strict=True):
        picture = Image.open(path)
        assert picture.mode == 'L'
        train_ids = sample['pred_sem_seg']['data'][0].numpy()
        assert np.array_equal(np.asarray(picture), np.vectorize(LABEL_IDS.__getitem__)(train_ids))


def test_scores_are_those_of_mmseg(tmp_path):
    ours, theirs = metric(output_dir=str(tmp_path)), metric('IoUMetric')
    for each in (ours, theirs):
        each.process({}, samples())
    assert ours.evaluate(3) == theirs.evaluate(3)
    assert len(list(tmp_path.iterdir())) == 3


def test_writing_without_a_folder_says_what_to_do():
    with pytest.raises(TrainingError, match='--out FOLDER'):
        metric(format_only=True)


def tool(argv):
    path = CONFIGS.parent / 'tools/test.py'
    spec = importlib.util.spec_from_file_location('test_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(argv)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Digits as Cityscapes' test set, without labels, and a checkpoint of a small model."""
    settings = DigitsSettings(train=2, val=3, scene=SceneSettings(size=64))
    build_digits(tmp_path / 'digits', ['cityscapes'], settings, log=lambda line: None)
    images = tmp_path / 'data/cityscapes/leftImg8bit/test'
    shutil.copytree(tmp_path / 'digits/cityscapes/leftImg8bit/val', images)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # slow, for the log
    return images


OPTIONS = {
    'test_dataloader.dataset.pipeline.1.scale': (64, 64),
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'model.backbone.depth': 18,
    'model.backbone.stem_channels': 8,
    'model.backbone.base_channels': 8,
    'model.decode_head.in_channels': 64,
    'model.auxiliary_head.in_channels': 32,
}


@pytest.mark.slow
@pytest.mark.parametrize('views', [[], ['--tta']], ids=['one scale', 'several scales'])
def test_the_test_set_is_written_by_the_tool(project, views, capsys):
    config = CONFIGS / 'fcn/fcn_r50-d8_sn_cityscapes_test-server.py'
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(OPTIONS)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)  # else one class wins everywhere
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, 'model.pth')
    options = [f'{key}={value}'.replace(' ', '') for key, value in OPTIONS.items()]

    def written(out, *more):
        argv = [str(config), 'model.pth', *views, '--out', out, '--cfg-options', *options, *more]
        assert tool(argv) == 0
        return {path.name: np.asarray(Image.open(path)) for path in Path(out).iterdir()}

    label_ids = written('label_ids')
    assert label_ids.keys() == {path.name for path in project.rglob('*.png')}
    train_ids = written('train_ids', 'test_evaluator.type=IoUMetric')
    for name, labels in train_ids.items():
        assert len(np.unique(labels)) > 1
        assert labels.shape == (64, 64)
        assert np.array_equal(label_ids[name], np.vectorize(LABEL_IDS.__getitem__)(labels))

    # Without a folder there is nothing to do.
    assert tool([str(config), 'model.pth', *views, '--cfg-options', *options]) == 1
    assert '--out FOLDER' in capsys.readouterr().err
