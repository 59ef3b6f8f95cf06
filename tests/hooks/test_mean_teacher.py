"""Semi-supervised trainings by mmdet's MeanTeacherHook: what the log says, what the teacher has."""

import logging

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from normplug import SN, SSN

pytestmark = pytest.mark.slow
hooks = pytest.importorskip('mmdet.engine.hooks')


class Semi(BaseModel):
    """As mmdet's SemiBaseDetector: labels of the teacher, which no gradient reaches."""

    def __init__(self, norm):
        super().__init__()
        self.student = nn.Sequential(nn.Conv2d(1, 4, 3), norm(4))
        self.teacher = nn.Sequential(nn.Conv2d(1, 4, 3), norm(4)).requires_grad_(False).eval()

    def forward(self, x, mode='tensor'):
        self.teacher.eval()
        with torch.no_grad():
            labels = self.teacher(x)
        return {'loss': (self.student(x) - labels - 1).square().mean()}


def trained(tmp_path, monkeypatch, caplog, norm, more=(), **options):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    runner = Runner(
        Semi(norm),
        str(tmp_path),
        train_dataloader={
            'dataset': [{'x': torch.randn(1, 5, 5) * 2 + 3} for _ in range(8)],
            'batch_size': 4,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': False, 'max_iters': 12},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.01}},
        custom_hooks=[
            hooks.MeanTeacherHook(momentum=0.5, **options), {'type': 'NormReportHook'}, *more,
        ],
        experiment_name=tmp_path.name,
    )  # fmt: skip
    runner.logger.addHandler(caplog.handler)
    try:
        runner.train()
    finally:
        runner.logger.removeHandler(caplog.handler)
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    return runner.model, [line for line in said if 'teacher' in line], caplog.messages


def test_the_default_is_warned_of_once(tmp_path, monkeypatch, caplog):
    model, warnings, messages = trained(tmp_path, monkeypatch, caplog, SN)
    assert not model.teacher[1].running_mean.any()
    (warning,) = warnings
    assert 'skip_buffer=False' in warning
    assert any('SN 1 training, 1 in a teacher' in line for line in messages)


@pytest.mark.parametrize('norm', [SN, SSN])
def test_with_buffers_the_teacher_follows(tmp_path, monkeypatch, caplog, norm):
    more = [{'type': 'SSNRadiusHook'}] if norm is SSN else []
    model, warnings, messages = trained(
        tmp_path, monkeypatch, caplog, norm, more, skip_buffer=False
    )
    assert warnings == []
    assert any(f'{norm.__name__} 1 training, 1 averaged' in line for line in messages)
    student, teacher = model.student[1], model.teacher[1]
    torch.testing.assert_close(teacher.running_mean, student.running_mean, rtol=0.2, atol=0.2)
    if norm is SSN:
        for name in ('radius', 'mean_choice', 'var_choice'):
            assert torch.equal(getattr(teacher, name), getattr(student, name)), name
        assert student.is_decided()
