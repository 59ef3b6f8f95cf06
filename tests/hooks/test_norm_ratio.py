"""Ratios in the records of a training, read back by what plots them."""

import json
from typing import ClassVar

import mmengine.runner.runner
import pytest
import torch
from mmengine.registry import VISBACKENDS
from mmengine.visualization import BaseVisBackend
from torch import nn

from normplug import SN
from normplug.errors import UnsuitableModelError
from normplug.hooks import NormRatioHook
from normplug.reports.ratios import read_evolution
from normplug.reports.runs import read_run
from tests.hooks import tiny_training as tiny


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)  # asks compilers for a second


def config(work_dir, norm='SSN', interval=10, **options):
    cfg = tiny.config(work_dir, hooks=('SampleSeedHook', 'SSNRadiusHook')[: 1 + (norm == 'SSN')])
    cfg.model.norm = norm
    cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'NormRatioHook', 'interval': interval}]
    cfg.merge_from_dict(options)
    return cfg


def records(work_dir):
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in found if any(tag.startswith('ratio/') for tag in record)]


@pytest.mark.slow
def test_every_interval_the_start_and_the_end(tmp_path):
    runner = tiny.build(config(tmp_path))
    runner.train()
    found = records(tmp_path)
    assert [record['step'] for record in found] == [0, 10, 20, 24]
    names = [f'ratio/norm/{s}_{n}' for s in ('mean', 'var') for n in ('in', 'ln', 'bn')]
    for record in found:
        assert set(record) == {*names, 'ratio/decided_layers', 'step'}
        assert sum(record[name] for name in names[:3]) == pytest.approx(1)
        assert sum(record[name] for name in names[3:]) == pytest.approx(1)
    assert [record['ratio/decided_layers'] for record in found] == [0, 0, 0, 1]
    assert [found[0][name] for name in names] == pytest.approx([1 / 3] * 6)
    assert [found[-1][name] for name in names] == torch.cat(runner.model.norm.ratios()).tolist()
    # Evaluations are still found, and the ratios read back.
    assert all('score' in record for record in read_run(tmp_path).val)
    evolution = read_evolution(tmp_path)
    assert list(evolution) == [0, 10, 20, 24]
    last = evolution[24]['norm']
    assert list(last) == ['mean', 'variance']
    assert list(last['mean'].values()) == [found[-1][name] for name in names[:3]]


@VISBACKENDS.register_module()
class KeptBackend(BaseVisBackend):
    """Keeps the scalars, as TensorBoard's and W&B's backends send them on."""

    kept: ClassVar[list] = []

    def __init__(self, save_dir=None):
        super().__init__(save_dir)

    def _init_env(self):
        pass

    @property
    def experiment(self):
        return self

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
        self.kept.append((step, scalar_dict))


@pytest.mark.slow
def test_sn_on_every_backend(tmp_path):
    cfg = config(tmp_path, 'SN')
    backends = [{'type': 'LocalVisBackend'}, {'type': 'KeptBackend'}]
    cfg.visualizer = {'type': 'Visualizer', 'vis_backends': backends, 'name': tmp_path.name}
    runner = tiny.build(cfg)
    runner.train()
    found = records(tmp_path)
    kept = [(step, s) for step, s in KeptBackend.kept if 'ratio/norm/mean_in' in s]
    assert [{**scalars, 'step': step} for step, scalars in kept] == found
    assert 'ratio/decided_layers' not in found[-1]
    names = [f'ratio/norm/var_{n}' for n in ('in', 'ln', 'bn')]
    assert [found[-1][name] for name in names] == runner.model.norm.ratios()[1].tolist()


def test_whitening(tmp_path, monkeypatch):
    logged = []
    runner = tiny.build(config(tmp_path, 'SW'))
    monkeypatch.setattr(runner.visualizer, 'add_scalars', lambda s, step: logged.append((step, s)))
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, NormRatioHook))
    with torch.no_grad():
        runner.model.norm.sw_mean_weight[0] += 1
    hook.before_train(runner)
    ((step, scalars),) = logged
    assert step == 0
    names = [f'ratio/norm/{s}_{n}' for s in ('mean', 'var') for n in ('bw', 'iw')]
    assert list(scalars) == names
    assert list(scalars.values()) == pytest.approx([0.731059, 0.268941, 0.5, 0.5], abs=1e-6)


def test_wrong_interval():
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        NormRatioHook(interval=0)


def test_no_ratios(tmp_path):
    runner = tiny.build(config(tmp_path, 'SN'))
    runner.model.norm = nn.BatchNorm2d(4)
    assert not any(isinstance(m, SN) for m in runner.model.modules())
    with pytest.raises(
        UnsuitableModelError, match='no SN, SSN or SW, whose ratios it logs; remove the hook'
    ):
        runner.train()
