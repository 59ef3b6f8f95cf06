"""A row of Table 6 on a few digits that move: inflated, trained, resumed, tested over 10 clips."""

import json

import pytest
import torch

from normplug.data.build import DigitsSettings, build_digits
from normplug.data.scene import SceneSettings
from tests.hooks import tiny_training as tiny
from tests.mm.norm_layers import randomize, resnet

pytest.importorskip('mmaction')
pytest.importorskip('mmdet')
pytest.importorskip('av')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Eight clips to train and eight to test, and a 2D network to start from."""
    folder = tmp_path_factory.mktemp('video')
    settings = DigitsSettings(train=16, val=8, scene=SceneSettings(size=64))
    digits = folder / 'work_dirs/data/digits'
    build_digits(digits, ['kinetics'], settings, log=lambda line: None)
    flat = randomize(resnet({'type': 'SN'}, base_channels=8, stem_channels=8))
    state = {f'backbone.{name}': value for name, value in flat.state_dict().items()}
    torch.save({'state_dict': state}, folder / '2d.pth')
    return folder


OPTIONS = (
    *('model.backbone.base_channels=8', 'model.cls_head.in_channels=64'),
    *('model.backbone.init_cfg.checkpoint=2d.pth', 'train_dataloader.batch_size=4'),
    *('train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1'),
    'model.cls_head.dropout_ratio=0.5',
)


@pytest.mark.slow
def test_a_row_resumes_to_the_last_bit_and_is_tested_over_10_clips(
    data, train, run_test, monkeypatch
):
    """mmaction2's sampling of clips, crops and flips draw by numpy; the head has dropout."""
    monkeypatch.chdir(data)
    config = 'normplug::i3d/i3d_r18-w32_sn_1xb8_digits.py'
    options = ['--cfg-options', *OPTIONS]

    def trained(name, epochs, *more):
        own = [f'train_cfg.max_epochs={epochs}', f'experiment_name={name}{epochs}']
        assert train([config, '--work-dir', name, *more, *options, *own]) == 0

    trained('alone', 2)
    trained('killed', 1)
    trained('killed', 2, '--resume')
    tiny.assert_same_training(tiny.load(data / 'alone'), tiny.load(data / 'killed'))
    log = next((data / 'alone').glob('*/*.log')).read_text()
    assert '2d.pth: 140 of 140 tensors used' in log

    argv = [config, 'alone/epoch_2.pth', '--work-dir', 'tested', '--out', 'found.pkl']
    assert run_test([*argv, *options, 'experiment_name=tested']) == 0
    (scores,) = (data / 'tested').glob('*/*.json')
    assert {'acc/top1', 'acc/top5'} <= json.loads(scores.read_text()).keys()
