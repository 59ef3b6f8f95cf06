"""Trainings killed by SIGKILL and resumed, against the same trainings left alone."""

import itertools
import os
import random
import re
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from normplug.hooks import NonFiniteLossHook, ResumableCheckpointHook, SampleSeedHook
from normplug.resume import storage
from tests.hooks import tiny_training as tiny

# (by_epoch, workers, persistent)
LOOPS = [(True, 0, False), (True, 2, True), (False, 0, False), (False, 2, True)]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """The last checkpoint of a training that nobody disturbed, by kind of loop."""
    done = {}

    def final(by_epoch=True):
        if by_epoch not in done:
            work_dir = tmp_path_factory.mktemp(f'alone_{"epoch" if by_epoch else "iter"}')
            assert tiny.train_apart(tiny.config(work_dir, by_epoch)) == 0
            done[by_epoch] = tiny.load(work_dir)
        return done[by_epoch]

    return final


@pytest.mark.slow
@pytest.mark.parametrize(('by_epoch', 'workers', 'persistent'), LOOPS)
def test_killed_and_resumed_is_the_same_to_the_last_bit(
    tmp_path, alone, by_epoch, workers, persistent
):
    cfg = tiny.config(tmp_path, by_epoch, workers, persistent=persistent)
    assert tiny.train_apart(cfg, kill_before=14) == -9
    assert tiny.load(tmp_path)['meta']['iter'] == 12
    assert tiny.train_apart(cfg, resume=True) == 0
    # alone() has no workers: these make no difference either.
    tiny.assert_same_training(alone(by_epoch), tiny.load(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_checkpoint_hook_by_itself(tmp_path, by_epoch):
    """Samples of num_workers=0 then draw from the random state of training."""
    cfgs = [tiny.config(tmp_path / name, by_epoch, hooks=()) for name in ('alone', 'killed')]
    assert tiny.train_apart(cfgs[0]) == 0
    assert tiny.train_apart(cfgs[1], kill_before=14) == -9
    assert tiny.train_apart(cfgs[1], resume=True) == 0
    tiny.assert_same_training(*(tiny.load(cfg.work_dir) for cfg in cfgs))


@pytest.mark.slow
def test_what_the_data_preprocessor_has_drawn(tmp_path):
    cfgs = [tiny.config(tmp_path / name) for name in ('alone', 'killed')]
    for cfg in cfgs:
        cfg.model.data_preprocessor = {'type': 'SteppingPreprocessor'}
    assert tiny.train_apart(cfgs[0]) == 0
    assert tiny.train_apart(cfgs[1], kill_before=14) == -9
    values = tiny.load(tmp_path / 'killed')['preprocessor_values']
    assert values.keys() == {'data_preprocessor._scale', 'data_preprocessor._batches'}
    assert tiny.train_apart(cfgs[1], resume=True) == 0
    tiny.assert_same_training(*(tiny.load(cfg.work_dir) for cfg in cfgs))


@pytest.mark.slow
def test_a_seed_that_no_config_names(tmp_path):
    """mmengine draws one; a resumed run takes it from the checkpoint, after building samplers."""
    cfg = tiny.config(tmp_path / 'killed')
    cfg.randomness = {'seed': None}
    assert tiny.train_apart(cfg, kill_before=14) == -9
    assert tiny.train_apart(cfg, resume=True) == 0
    same = tiny.config(tmp_path / 'alone')
    same.randomness = {'seed': tiny.load(cfg.work_dir)['meta']['seed']}
    assert tiny.train_apart(same) == 0
    tiny.assert_same_training(tiny.load(same.work_dir), tiny.load(cfg.work_dir))

    cfg.custom_hooks = []
    assert tiny.train_apart(cfg, resume=True) == 0
    assert 'the order of the data is not that of the interrupted training' in tiny.log(cfg.work_dir)


@pytest.mark.slow
def test_validation_does_not_move_the_training(tmp_path, alone):
    cfg = tiny.config(tmp_path)
    cfg.train_cfg.val_interval = 3
    assert tiny.train_apart(cfg) == 0
    tiny.assert_same_training(alone(), tiny.load(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('function', 'call', 'left', 'last'),
    [
        # One checkpoint: a file and last_checkpoint, each with an fsync for it and for the folder.
        ('os.fsync', 5, ['epoch_1.pth'], 'epoch_1.pth'),  # the second is written, not renamed
        ('os.replace', 3, ['epoch_1.pth'], 'epoch_1.pth'),
        ('os.replace', 4, ['epoch_1.pth', 'epoch_2.pth'], 'epoch_1.pth'),
        ('mmengine.fileio.LocalBackend.remove', 1, ['epoch_1.pth', 'epoch_2.pth'], 'epoch_2.pth'),
    ],
)
def test_killed_while_saving(tmp_path, alone, function, call, left, last):
    cfg = tiny.config(tmp_path, max_keep_ckpts=1)
    kill = partial(tiny.kill_at_call, function=function, call=call)
    assert tiny.train_apart(cfg, prepare=kill) == -9
    assert tiny.whole(tmp_path) == left
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / last)
    assert tiny.train_apart(cfg, resume=True) == 0
    assert tiny.whole(tmp_path) == ['epoch_4.pth']
    assert not list(tmp_path.glob('.*'))
    tiny.assert_same_training(alone(), tiny.load(tmp_path))


@pytest.mark.slow
def test_killed_at_random(tmp_path, alone):
    """With many more kills: KILLS=60 pytest -k at_random."""
    moments = random.Random(time.time_ns())
    left = int(os.environ.get('KILLS', 6))
    for attempt in itertools.count():
        work_dir = tmp_path / str(attempt)
        cfg = tiny.config(work_dir, max_keep_ckpts=2, save_best='epoch_number', rule='greater')
        ended = False
        while not ended:
            process = tiny.start(cfg, resume=(work_dir / 'last_checkpoint').exists())
            process.join(moments.uniform(0.1, 0.9) if left else tiny.TIMEOUT)
            process.kill()
            ended = tiny.finish(process) == 0
            left -= not ended
            checkpoints = tiny.whole(work_dir)
            if (work_dir / 'last_checkpoint').exists():
                assert Path((work_dir / 'last_checkpoint').read_text()).name in checkpoints
        tiny.assert_same_training(alone(), tiny.load(work_dir))
        assert not list(work_dir.glob('.*'))
        if not left:
            return


@pytest.mark.slow
@pytest.mark.parametrize(('write', 'names'), [(3, 'epoch_2.pth'), (4, 'last_checkpoint')])
def test_the_disk_gets_full(tmp_path, alone, write, names):
    cfg = tiny.config(tmp_path, max_keep_ckpts=1)
    assert tiny.train_apart(cfg, prepare=partial(tiny.fill_the_disk, write=write)) == 1
    error = tiny.error(tmp_path)
    assert f'{tmp_path / names} cannot be written: File too large' in error
    assert 'MB free' in error
    assert 'continue with --resume' in error
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert 'epoch_1.pth' in tiny.whole(tmp_path)
    assert not list(tmp_path.glob('.*'))
    assert tiny.train_apart(cfg, resume=True) == 0
    tiny.assert_same_training(alone(), tiny.load(tmp_path))


@pytest.mark.slow
def test_the_old_best_checkpoint_stays_until_the_new_one_is_there(tmp_path):
    cfg = tiny.config(tmp_path, save_best='epoch_number', rule='greater')
    # checkpoint, pointer, best, checkpoint, pointer; then the same, killed at the second best
    kill = partial(tiny.kill_at_call, function='os.replace', call=8)
    assert tiny.train_apart(cfg, prepare=kill) == -9
    assert tiny.whole(tmp_path) == ['best_epoch_number_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth']
    assert tiny.train_apart(cfg, resume=True) == 0
    names = tiny.whole(tmp_path)
    assert [name for name in names if name.startswith('best')] == ['best_epoch_number_epoch_4.pth']
    best = tiny.load(tmp_path, 'best_epoch_number_epoch_4.pth')
    assert 'random_states' not in best


@pytest.mark.slow
def test_checkpoints_of_both_hooks_resume_with_the_other(tmp_path):
    cfg = tiny.config(tmp_path)
    plain = tiny.config(tmp_path)
    plain.default_hooks.checkpoint.type = 'CheckpointHook'
    plain.custom_hooks = []
    assert tiny.train_apart(cfg, kill_before=8) == -9
    assert tiny.train_apart(plain, resume=True, kill_before=14) == -9
    assert 'random_states' not in tiny.load(tmp_path)
    assert tiny.train_apart(cfg, resume=True) == 0
    assert 'random states are not restored: the checkpoint has none' in tiny.log(tmp_path)
    assert tiny.load(tmp_path)['meta']['iter'] == 24


@pytest.mark.slow
def test_checkpoint_of_another_number_of_processes(tmp_path):
    cfg = tiny.config(tmp_path)
    assert tiny.train_apart(cfg, kill_before=8) == -9
    checkpoint = tiny.load(tmp_path)
    checkpoint['random_states'] *= 2
    torch.save(checkpoint, (tmp_path / 'last_checkpoint').read_text())
    assert tiny.train_apart(cfg, resume=True) == 0
    assert (
        'random states are not restored: the checkpoint is of 2 processes, this training of 1'
        in tiny.log(tmp_path)
    )


@pytest.mark.slow
def test_refuses_before_training(tmp_path):
    file = tmp_path / 'file'
    file.touch()
    cfg = tiny.config(tmp_path / 'work', out_dir=str(file))
    assert tiny.train_apart(cfg) == 1
    assert f'NotADirectoryError: [Errno 20] {file} is a file' in tiny.error(tmp_path / 'work')
    cfg = tiny.config(tmp_path / 'work')
    assert tiny.train_apart(cfg, prepare=tiny.no_room) == 1
    assert '0.0 MB are free' in tiny.error(tmp_path / 'work')
    assert not list((tmp_path / 'work').glob('*.pth'))


@pytest.mark.slow
def test_publishes_atomically_and_what_was_asked_for(tmp_path):
    cfg = tiny.config(tmp_path, published_keys=['meta', 'state_dict'])
    assert tiny.train_apart(cfg) == 0
    (name,) = (name for name in tiny.whole(tmp_path) if '-' in name)
    assert set(tiny.load(tmp_path, name)) == {'meta', 'state_dict'}


@pytest.mark.parametrize(
    ('options', 'used'),
    [
        ({}, {'backend': storage.BACKEND}),
        ({'out_dir': '/somewhere'}, {'backend': storage.BACKEND}),
        ({'backend_args': {'backend': 'local'}}, {'backend': storage.BACKEND}),
        ({'out_dir': 's3://bucket/run'}, None),
        ({'backend_args': {'backend': 'petrel'}}, {'backend': 'petrel'}),
    ],
)
def test_storage_that_is_not_local_is_used_as_it_is(options, used):
    hook = ResumableCheckpointHook(**options)
    assert hook._choose_storage() == (used == {'backend': storage.BACKEND})
    assert hook.backend_args == used


def test_registered_in_the_root():
    assert HOOKS.module_dict['ResumableCheckpointHook'] is ResumableCheckpointHook
    assert issubclass(ResumableCheckpointHook, CheckpointHook)


def test_the_hooks_of_the_document():
    document = Path(__file__).parents[2] / 'docs/resume.md'
    (block,) = re.findall(r'```python\n(.*?)```', document.read_text(), re.DOTALL)
    cfg = Config.fromstring(block, '.py')
    hooks = [HOOKS.build(hook) for hook in (cfg.default_hooks.checkpoint, *cfg.custom_hooks)]
    assert [type(hook) for hook in hooks] == [
        ResumableCheckpointHook,
        SampleSeedHook,
        NonFiniteLossHook,
    ]
