"""The report of norm layers: counts, states, the warning, and when it is logged."""

import logging
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from normplug import IBN, PN, SN, SSN, SW, IterNorm, SyncIBN, SyncSN
from normplug.hooks.mean_teacher import has_lost_statistics
from normplug.hooks.norm_report import (
    NormReportHook,
    norm_report,
    norm_state,
    norms_under_norm_eval,
    population_report,
    precise_bn_report,
    sync_bn_report,
    teacher_report,
)
from normplug.launch.portable_ddp import make_sync_bn_portable


def fixed(layer):
    return layer.requires_grad_(False)


@pytest.mark.parametrize(
    ('layer', 'state'),
    [
        (SN(4), 'training'),
        (SN(4).eval(), 'evaluating'),
        (SN(4, frozen=True), 'frozen'),
        (fixed(SN(4)), 'training'),  # its running statistics move
        (fixed(SN(4, using_bn=False)), 'frozen'),
        (fixed(SN(4)).eval(), 'frozen'),  # what frozen_stages does
        (IBN(4, ratio=1), 'training'),
        (nn.BatchNorm2d(4), 'training'),
        (nn.BatchNorm2d(4).eval(), 'evaluating'),
        (fixed(nn.BatchNorm2d(4)), 'training'),
        (fixed(nn.BatchNorm2d(4)).eval(), 'frozen'),
        (nn.GroupNorm(2, 4), 'training'),
        (fixed(nn.GroupNorm(2, 4)), 'frozen'),
    ],
    ids=str,
)
def test_state(layer, state):
    assert norm_state(layer) == state


def test_counts_by_type_and_state():
    model = nn.Sequential(
        nn.GroupNorm(2, 4),
        SN(4),
        fixed(nn.BatchNorm2d(4)).eval(),
        nn.Sequential(SN(4), SN(4, frozen=True), nn.Conv2d(4, 4, 1)),
        nn.BatchNorm2d(4),
        nn.SyncBatchNorm(4),
        fixed(nn.BatchNorm2d(4)).eval(),
        IBN(4).eval(),
    )
    assert norm_report(model) == (
        'norms: IBN 1 evaluating; SN 2 training, 1 frozen; BatchNorm2d 1 training, 2 frozen; '
        'GroupNorm 1 training; SyncBatchNorm 1 training'
    )


def test_no_norm_at_all():
    assert norm_report(nn.Conv2d(3, 3, 1)) == 'norms: none'


def test_how_pn_begins():
    loaded = PN(4)
    loaded.num_batches_tracked.fill_(150)
    model = nn.Sequential(
        PN(4), PN(4), loaded, PN(4, noise='both'), PN(4, population='estimated', warmup=7),
        PN(4).eval(), PN(4, frozen=True), SN(4), PN(4, warmup=0),
    )  # fmt: skip
    assert population_report(model) == [
        'PN: 2 layers: statistics of the batch for the first 100 batches, '
        'then the running population',
        'PN: 1 layers: the running population from the start, 150 batches counted',
        "PN: 1 layers: noise='both' is batch norm",
        'PN: 1 layers: statistics of the batch for the first 7 batches, '
        'then the estimated population',
        'PN: 1 layers: the running population from the start, 0 batches counted, so of mean 0 and '
        'variance 1: set warmup of norm_cfg',
    ]
    assert population_report(nn.BatchNorm2d(4)) == []


def test_drawn_noise_without_an_estimate_of_its_kurtosis_is_told():
    noises = [{'noise': noise, 'samples': 2} for noise in ('mean', 'var', 'both', 'both')]
    layers = [PN(4, **noise) for noise in noises]
    layers[-1].is_estimated = True
    told = [line for line in population_report(nn.Sequential(*layers)) if 'kurtosis' in line]
    assert told == [
        f'PN: 1 layers: noise={noise!r}, samples=2: nothing estimates the kurtosis, which stays '
        "the checkpoint's, or 0, a Gaussian's: add dict(type='PopulationHook') to custom_hooks"
        for noise in ('var', 'both')
    ]


class Backbone(nn.Sequential):
    norm_eval = True


class PartialBN(nn.Sequential):
    norm_eval = False
    partial_bn = True


def test_norm_eval_is_reported_only_where_ours_train():
    model = nn.ModuleDict(
        {
            'ours': Backbone(SN(4), nn.BatchNorm2d(4)),
            'theirs': Backbone(nn.BatchNorm2d(4)),
            'frozen': Backbone(SN(4, frozen=True)),
            'free': nn.Sequential(IBN(4)),
            'tsn': PartialBN(nn.BatchNorm2d(4), IBN(4)),
        }
    )
    assert norms_under_norm_eval(model) == {
        'norm_eval=True of ours': {'SN'},
        'partial_bn=True of tsn': {'IBN'},
    }


@pytest.mark.parametrize(
    ('layers', 'parts'),
    [
        ([SN(4), SyncSN(4)], 'SyncSN (synchronized anyway); SN (statistics of each rank; '
         'statistics of all ranks: SyncSN)'),
        ([IBN(4), SN(4), SN(4)], 'IBN, SN (statistics of each rank; statistics of all ranks: '
         'SyncIBN, SyncSN)'),
        ([SyncIBN(4)], 'SyncIBN (synchronized anyway)'),
    ],
    ids=['both', 'local', 'synchronized'],
)  # fmt: skip
def test_sync_bn_is_said_to_leave_ours_alone(layers, parts):
    model = nn.Sequential(nn.BatchNorm2d(4), *layers)
    assert sync_bn_report(model, 'torch') == (
        f"sync_bn='torch' converts batch norms only, and leaves these as they are: {parts}"
    )


def test_sync_bn_without_ours_needs_no_report():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.SyncBatchNorm(4))
    make_sync_bn_portable(model)
    assert sync_bn_report(model, 'torch') is None


class MeanTeacherHook:
    """What mmdet's has, which tests/hooks/test_mean_teacher.py takes where it is installed."""

    def __init__(self, skip_buffers):
        self.skip_buffers = skip_buffers


class Pair(nn.Module):
    def __init__(self, *layers, teacher):
        super().__init__()
        self.student, self.teacher = nn.Sequential(*layers), fixed(nn.Sequential(*teacher))


LOST = 'in a teacher that never gets their statistics'


@pytest.mark.parametrize('hook', [None, MeanTeacherHook(True), MeanTeacherHook(False)])
def test_the_norms_of_a_teacher(hook):
    student, teacher = (
        [SN(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), SN(4, frozen=True)]
        for _ in range(2)
    )
    fixed(student[2]).eval()
    pair = Pair(*student, teacher=teacher)
    report = {
        None: 'SN 2 training, 2 frozen; BatchNorm2d 3 training, 1 frozen; GroupNorm 1 training, '
        '1 frozen',
        True: f'SN 1 training, 2 frozen, 1 {LOST}; BatchNorm2d 1 training, 2 frozen, 1 {LOST}; '
        'GroupNorm 1 training, 1 averaged',
        False: 'SN 1 training, 2 frozen, 1 averaged; BatchNorm2d 1 training, 2 frozen, 1 averaged; '
        'GroupNorm 1 training, 1 averaged',
    }[hook and hook.skip_buffers]
    assert norm_report(pair, hook) == f'norms: {report}'
    warning = teacher_report(pair, hook)
    assert (warning is not None) == bool(hook and hook.skip_buffers)
    if warning:
        assert '2 norms of the type BatchNorm2d, SN' in warning
        assert "custom_hooks=[dict(type='MeanTeacherHook', skip_buffer=False)]" in warning


def test_a_teacher_that_lost_its_statistics_shows_without_its_hook():
    pair = Pair(SN(4), IBN(4, ratio=1), teacher=[SN(4), IBN(4, ratio=1)])
    assert teacher_report(pair) is None  # nothing moved yet
    pair.student[0](torch.randn(2, 4, 3, 3))
    assert norm_report(pair) == f'norms: IBN 1 training, 1 frozen; SN 1 training, 1 {LOST}'
    assert '1 norms of the type SN' in teacher_report(pair)
    runner = SimpleNamespace(model=pair, logger=Mock())
    hook = NormReportHook()
    hook.before_val(runner)
    hook.before_test(runner)
    runner.logger.warning.assert_called_once_with(teacher_report(pair))
    pair.teacher[0].running_mean.copy_(pair.student[0].running_mean)  # num_batches_tracked is not
    assert teacher_report(pair) is None


def test_a_pretrained_teacher_of_another_network_is_no_average():
    pair = Pair(SN(4), teacher=[nn.Conv2d(4, 4, 1), SN(4)])
    pair.student[0](torch.randn(2, 4, 3, 3))
    assert teacher_report(pair, MeanTeacherHook(True)) is None


class PreciseBNHook:
    pass


def test_precise_bn_is_said_to_leave_ours_out():
    model = nn.Sequential(SN(4), IBN(4), nn.BatchNorm2d(4), SSN(4, frozen=True))
    assert precise_bn_report(model, []) is None
    assert precise_bn_report(model[2:], [PreciseBNHook()]) is None
    warning = precise_bn_report(model, [PreciseBNHook()])
    assert 'not those of IBN, SN:' in warning
    assert "dict(type='PreciseBNStatsHook')" in warning


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone(nn.Linear(1, 4), SN(4, using_in=False), nn.BatchNorm1d(4))

    def train(self, mode=True):
        super().train(mode)
        self.backbone[2].eval()
        return self

    def forward(self, x, mode='tensor'):
        return {'loss': self.backbone(x).sum()}


def test_a_training_logs_it_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    runner = Runner(
        Model().eval(),  # a state that the loop changes before the report
        str(tmp_path),
        train_dataloader={
            'dataset': [{'x': torch.ones(1)}] * 8,
            'batch_size': 2,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': False, 'max_iters': 3},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        custom_hooks=[{'type': 'NormReportHook'}],
        experiment_name='norm_report',
        cfg={'sync_bn': 'torch'},
    )
    runner.logger.addHandler(caplog.handler)
    try:
        runner.train()
    finally:
        runner.logger.removeHandler(caplog.handler)
    assert caplog.messages.count('norms: SN 1 training; BatchNorm1d 1 evaluating') == 1
    assert sum(message.startswith("sync_bn='torch'") for message in caplog.messages) == 1
    assert [r.getMessage() for r in caplog.records if 'norm_eval' in r.getMessage()] == [
        'norm_eval=True of backbone does not apply to SN: these stay in training mode; '
        "to freeze them, norm_cfg=dict(type='SN', frozen=True)"
    ]
    levels = [r.levelno for r in caplog.records if 'norm_eval' in r.getMessage()]
    assert levels == [logging.WARNING]


def test_registered_in_the_root():
    assert HOOKS.module_dict['NormReportHook'] is NormReportHook


@pytest.mark.parametrize('kind', [SW, IterNorm])
def test_a_teacher_without_the_running_matrices_of_its_student(kind):
    teacher, student = kind(4), kind(4)
    assert not has_lost_statistics(teacher, student)
    student(torch.randn(2, 4, 3, 3))
    assert has_lost_statistics(teacher, student)
    teacher.load_state_dict(student.state_dict())
    assert not has_lost_statistics(teacher, student)
