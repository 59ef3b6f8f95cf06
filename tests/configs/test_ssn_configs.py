"""The configs with SSN have the released recipe for the ratios."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from normplug.hooks import RatioGradClipHook, SSNRadiusHook
from normplug.norms import SSN
from normplug.register import NORMS
from tests.configs import (
    rows_classification,
    rows_detection,
    rows_league,
    rows_practice,
    rows_video,
)
from tests.configs.loading import CONFIGS, build, load

NAMES = [
    'pretrain/resnet18-w32_ssn_digits.py',
    'faster_rcnn/faster-rcnn_r18-w32_fpn_ssn_digits.py',
]
both = pytest.mark.parametrize('name', NAMES)


def test_these_are_all():
    found = [str(p.relative_to(CONFIGS)) for p in Path(CONFIGS).rglob('*_ssn_*.py')]
    # These have tests of their own.
    rows = rows_detection.EXPECTED | rows_classification.EXPECTED | rows_video.EXPECTED
    rows |= rows_practice.EXPECTED | rows_league.EXPECTED
    assert sorted(set(found) - set(rows)) == sorted(NAMES)


@both
def test_ratios_learn_at_a_tenth_and_without_decay(name):
    cfg = load(name)
    model = build(cfg)
    layers = [layer for layer in model.modules() if isinstance(layer, SSN)]
    ratios = {id(p) for layer in layers for p in (layer.mean_weight, layer.var_weight)}
    lr, decay = (cfg.optim_wrapper.optimizer[key] for key in ('lr', 'weight_decay'))
    seen = set()
    for group in build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups:
        for parameter in group['params']:
            is_ratio = id(parameter) in ratios
            want = (lr / 10, 0) if is_ratio else (lr, decay)
            assert (group['lr'], group['weight_decay']) == pytest.approx(want)
            seen.add(id(parameter))
    assert ratios <= seen
    assert NORMS['SSN'] is SSN


@both
def test_hooks_are_added_to_those_of_every_config(name):
    runtime = Config.fromfile(CONFIGS / '_base_/runtime.py').custom_hooks
    hooks = load(name).custom_hooks
    assert hooks[: len(runtime)] == runtime
    added = {hook['type']: hook for hook in hooks[len(runtime) :]}
    assert set(added) == {SSNRadiusHook.__name__, RatioGradClipHook.__name__, 'NormRatioHook'}
    assert added['RatioGradClipHook']['max_norm'] == 1
    assert added['SSNRadiusHook'].get('end', 1) == 1
