"""The parts of the GPU check that its command line does not reach on a CPU."""

import re
import time
import warnings
from contextlib import contextmanager

import pytest
import torch

from normplug.gpu_check import behaviour, parity, speed, waits
from normplug.gpu_check.checks import Check, FailedError, Setting, SkippedError, perform
from normplug.gpu_check.comparison import Outcome, compare, expected, layer_of, run, tensors_of
from normplug.gpu_check.environment import _compiler
from normplug.gpu_check.ranks import _two_ranks
from normplug.hooks import NonFiniteLossHook, SSNRadiusHook


def raising(error):
    def call():
        raise error

    return call


def test_each_check_has_a_result():
    calls = {
        'ok': lambda: 'seen',
        'wrong': raising(FailedError('off by one')),
        'bug': raising(ZeroDivisionError('by\n zero')),
        'here not': raising(SkippedError('no mmdet')),
        'small': raising(torch.OutOfMemoryError('no 3 GiB\nfree')),
    }
    checks = [Check(name, call) for name, call in calls.items()]
    checks.append(Check('two', lambda: 'never', gpus=2))
    lines = []
    results = perform('g', checks, 'cpu', 60, lines.append)
    assert [(r.name, r.state, r.seen) for r in results] == [
        ('ok', 'ok', 'seen'),
        ('wrong', 'failed', 'off by one'),
        ('bug', 'failed', 'ZeroDivisionError: by zero'),
        ('here not', 'skipped', 'no mmdet'),
        ('small', 'skipped', 'not enough memory: no 3 GiB'),
        ('two', 'skipped', 'needs 2 GPUs'),
    ]
    assert lines[1].startswith('g: wrong: failed: off by one [')


def test_no_check_begins_after_the_limit():
    checks = [Check('long', lambda: time.sleep(0.05)), Check('late', lambda: 'never')]
    first, second = perform('g', checks, 'cpu', 0.04, lambda line: None)
    assert first.state == 'ok'
    assert (second.state, second.seen) == ('skipped', 'not reached in 0 s: raise --minutes')


def test_a_broken_gpu_is_told_once(monkeypatch):
    """An illegal access fails the check that made it; what follows says how to go on."""
    broken = []

    def synchronize():
        if broken:
            raise torch.AcceleratorError('an illegal memory access was encountered')

    monkeypatch.setattr(torch.cuda, 'synchronize', synchronize)
    checks = [Check('one', lambda: broken.append(1)), Check('two', lambda: 'never')]
    first, second = perform('g', checks, 'cuda', 60, lambda line: None)
    assert first.state == 'failed'
    assert 'illegal memory access' in first.seen
    assert second.state == 'skipped'
    assert second.seen.endswith('--only g')


@pytest.fixture
def right():
    x, dy = tensors_of((2, 8, 4, 6), 'float16', 'channels_last', 'cpu')
    layer = layer_of('IBN', 8, 'eager', 'cpu')
    want = expected(layer, x, dy, True)
    return run(layer, x, dy, True), want, x


def test_a_right_layer_is_within_its_tolerance(right):
    assert 0 < compare(*right, 'float16') < 1


@pytest.mark.parametrize(
    ('name', 'wrong', 'message'),
    [
        ('the output', lambda t: t.contiguous(), 'the output is not torch.channels_last'),
        ('the output', torch.Tensor.float, 'the output is torch.float32, its input torch.float16'),
        ('the gradient of x', torch.zeros_like, 'the gradient of x is off by'),
        ('the gradient of bias', lambda t: t * 1.002, 'the gradient of bias is off by'),
        ('running_mean', lambda t: t + 1e-4, 'running_mean is off by'),
        ('num_batches_tracked', lambda t: t * 0, 'num_batches_tracked is off by'),
    ],
)
def test_each_tensor_is_compared(name, wrong, message, right):
    got, want, x = right
    got = Outcome(
        *({key: wrong(t) if key == name else t for key, t in part.items()} for part in got[:2])
    )
    with pytest.raises(FailedError, match=re.escape(message)) as caught:
        compare(got, want, x, 'float16')
    assert ';' not in str(caught.value)  # and no other


def test_an_empty_batch_gives_exact_zeros():
    x, dy = tensors_of((0, 8, 4, 6), 'float32', 'contiguous', 'cpu')
    layer = layer_of('KN', 8, 'eager', 'cpu')
    want = expected(layer, x, dy, True)
    got = run(layer, x, dy, True)
    assert compare(got, want, x, 'float32') == 0
    got.tensors['the gradient of norm.weight'] += 1e-9
    with pytest.raises(FailedError, match=r'gradient of norm\.weight'):
        compare(got, want, x, 'float32')


def test_sizes_come_in_both_orders(monkeypatch):
    """What is wrong only after another size is found, and told with that size."""
    build, honest, seen = parity.layer_of, parity.run, []

    def wrong_after_large(layer, x, *args):
        got = honest(layer, x, *args)
        seen.append(x.shape[-1])
        if seen[-2:] == [9, 2]:
            got.tensors['the output'] += 1
        return got

    monkeypatch.setattr(
        parity, 'layer_of', lambda name, c, _, where: build(name, c, 'eager', where)
    )
    monkeypatch.setattr(parity, 'run', wrong_after_large)
    shapes = ((2, 4, 3, 2), (2, 4, 3, 9))
    with pytest.raises(FailedError, match=r'^2x4x3x2 after 2x4x3x9: the output is off by'):
        parity._sizes('SN', 'compiled', shapes, 'cpu')
    assert seen == [2, 9, 9, 2]


def test_mask_rcnn_where_it_fits(monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (3 * 2**30, 8 * 2**30))
    setting = Setting('cuda')
    with pytest.raises(SkippedError, match='3 GiB are free, of 16 needed'):
        speed._mask_rcnn('float32', setting)
    rows = [{'norm': 'SN', 'step_s_p50': 0.2, 'ratio': 1.25}, {'norm': 'BN'}]
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (20 * 2**30, 24 * 2**30))
    monkeypatch.setattr('normplug.bench.models.measure_model', lambda *_: rows)
    assert speed._mask_rcnn('float32', setting).endswith('0.200 s, 1.25 of that with BN')
    assert setting.tables == {'mask-rcnn': rows}


def test_statistics_that_an_overflow_spoils_are_named(monkeypatch):
    honest = behaviour.layer_of

    def spoil(layer, inputs, _):
        layer.running_mean.add_(inputs[0].float().mean() * 0)

    def spoiled(*args):
        layer = honest(*args)
        layer.register_forward_hook(spoil)
        return layer

    monkeypatch.setattr(behaviour, 'layer_of', spoiled)
    with pytest.raises(FailedError, match=r'1\.running_mean is not finite'):
        behaviour._overflow('cpu', 'SN', 'eager')


def test_noise_from_step_to_step_is_named(monkeypatch):
    honest = behaviour.run

    def noisy(*args):
        result = honest(*args)
        result.tensors['the output'] += torch.rand(())
        return result

    monkeypatch.setattr(behaviour, 'run', noisy)
    with pytest.raises(FailedError, match=r'^the output: not the same twice'):
        behaviour._repeated('cpu', 'SN', 'eager')


@pytest.mark.parametrize(('other', 'fails'), [(1.4, False), (1.6, True), (float('nan'), True)])
def test_code_for_another_size_may_not_be_slow(other, fails, monkeypatch):
    """Of the two times, one is by code that was made for the size itself."""
    times = {(4, 4): 1.0, (2, 4): other}
    monkeypatch.setattr(speed, '_milliseconds', lambda _, first, then, __: times[first, then])
    if not fails:
        assert '1.40' in speed._order('SN', 2, 4, 'cpu')
        return
    with pytest.raises(FailedError, match=r'allowed: below 1\.5'):
        speed._order('SN', 2, 4, 'cpu')


def test_waits_of_a_hook_are_counted_beside_a_training_without(monkeypatch):
    counts = {None: 3, 'NonFiniteLossHook': 4, 'SSNRadiusHook': 4}
    monkeypatch.setattr(waits, '_waits', counts.get)
    assert waits._of_hook('NonFiniteLossHook', 1) == '1 in an iteration'
    with pytest.raises(FailedError, match='1 in an iteration, allowed: 0'):
        waits._of_hook('SSNRadiusHook', 0)


def test_waits_are_the_warnings_of_torch(monkeypatch):
    modes, counts = [], []
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', modes.append)
    with waits._counted(counts):
        for _ in range(2):
            warnings.warn('called a synchronizing CUDA operation', stacklevel=1)
        warnings.warn('something else', stacklevel=1)
    assert (modes, counts) == (['warn', 'default'], [2])


def test_hooks_run_within_the_counted_iterations(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    seen = []

    def spy(hook, name):
        honest = getattr(hook, name)

        def method(*args, **kwargs):
            seen.append(name)
            return honest(*args, **kwargs)

        monkeypatch.setattr(hook, name, method)

    spy(SSNRadiusHook, 'before_train_iter')
    spy(NonFiniteLossHook, 'after_train_iter')

    @contextmanager
    def around():
        seen.append('begin')
        yield
        seen.append('end')

    waits.iterations('cpu', [{'type': 'SSNRadiusHook'}, {'type': 'NonFiniteLossHook'}], around)
    assert seen == 4 * ['begin', 'before_train_iter', 'after_train_iter', 'end']


@pytest.mark.parametrize('name', ['SN', 'SSN', 'IBN', 'GhostBN'])
def test_what_is_allowed_suits_a_rule_in_float32(rules_in_float32, name):
    parity._parity(name, 'eager', 'float32', 'cpu')
    parity._sizes(name, 'eager', parity._ORDERS['near 256 pixels'], 'cpu')


@pytest.mark.slow
def test_compiled_code_of_the_cpu():
    setting = Setting('cpu', ['compiled'], quick=True)
    assert _compiler(setting).startswith('2 graphs compiled')
    assert speed._milliseconds('SN', (2, 8, 6, 10), (2, 8, 7, 7), 'cpu') > 0


@pytest.mark.slow
def test_a_whole_graph_of_torch_compile():
    assert behaviour._whole_graph('IBN', 'cpu').startswith('as uncompiled')


@pytest.mark.slow
def test_a_rank_that_fails_is_named():
    with pytest.raises(FailedError, match=r"rank \d: ValueError: .* got 'none'"):
        _two_ranks('none', 'cpu')
