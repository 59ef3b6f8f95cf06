"""What mmengine trains, however unusual, no check refuses."""

import pytest

from normplug.preflight.config import load_config
from normplug.preflight.settings import check_settings
from normplug.preflight.types import check_types

WITHOUT_SAMPLER = "train_dataloader.pop('sampler')\n"


@pytest.mark.parametrize(
    'line',
    [
        WITHOUT_SAMPLER,
        WITHOUT_SAMPLER + "train_dataloader['shuffle'] = True",
        "val_dataloader['sampler'] = None",
        'train_cfg = dict(max_iters=4)',
        "train_cfg['val_interval'] = -1",
        "optim_wrapper['clip_grad'] = dict(max_norm='35')",
        "custom_hooks = [dict(type='EMAHook', interval=-1)]",
        'custom_hooks = None',
        "default_hooks['logger'] = None",
        'val_evaluator = []',
    ],
)
def test_unusual_settings(project, line):
    cfg = load_config(project.write_config(line + '\n'))
    check_types(cfg, ('train', 'val'))
    check_settings(cfg, ('train', 'val'))


@pytest.mark.slow
def test_a_training_without_a_sampler_resumes(project, train):
    """The hook that seeds samples builds the loader's samplers anew."""
    config = project.write_config(
        WITHOUT_SAMPLER + "custom_hooks = [dict(type='SampleSeedHook')]\n"
    )
    assert train([config]) == 0
    assert train([config, '--resume', '--cfg-options', 'train_cfg.max_iters=6']) == 0
