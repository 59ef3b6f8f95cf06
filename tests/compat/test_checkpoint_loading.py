"""Checkpoints of mmengine load under `weights_only=True`; a pickle that wants more is refused."""

import builtins
import os
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import mmengine.logging
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from normplug import compat
from normplug.compat import checkpoint


@pytest.fixture(autouse=True)
def installed():
    compat.install()


def load(path, map_location='cpu'):
    return CheckpointLoader.load_checkpoint(str(path), map_location)


class Call:
    """Pickles as the call of `function` with `args`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def save(request, tmp_path):
    def save(obj):
        path = tmp_path / 'checkpoint.pth'
        torch.save(obj, path, _use_new_zipfile_serialization=request.param)
        return path

    return save


def test_install_twice_changes_nothing():
    before = set(torch.serialization.get_safe_globals())
    compat.install()
    assert set(torch.serialization.get_safe_globals()) == before
    assert CheckpointLoader._schemes[''] is checkpoint.load_from_local


# --- what mmengine writes ---


def test_log_history_and_numpy_values(save):
    buffer = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    state = {
        'buffer': buffer,
        'array': np.arange(6, dtype=np.uint8).reshape(2, 3),
        'names': np.array(['a', 'bc']),
        'scalar': np.float32(0.5),
        'dtype': np.dtype('int64'),
        'weight': torch.arange(3.0),
    }
    got = load(save(state))
    assert got['buffer'].mean() == 3.0
    assert got['buffer'].statistics('max') == 6.0
    np.testing.assert_array_equal(got['buffer'].data, buffer.data)
    np.testing.assert_array_equal(got['array'], state['array'])
    assert got['names'].tolist() == ['a', 'bc']
    assert (got['scalar'], type(got['scalar'])) == (0.5, np.float32)
    assert got['dtype'] == np.dtype('int64')
    assert torch.equal(got['weight'], state['weight'])


@pytest.mark.parametrize('package', [b'numpy.core', b'numpy._core'])
def test_numpy_of_both_major_versions(package, tmp_path):
    path = tmp_path / 'checkpoint.pth'
    torch.save([np.arange(3), np.float64(2)], path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    own = np.ndarray(0).__reduce__()[0].__module__.rsplit('.', 1)[0].encode()
    assert written.count(own + b'.multiarray') == 2
    path.write_bytes(written.replace(own + b'.multiarray', package + b'.multiarray'))
    array, scalar = load(path)
    assert array.tolist() == [0, 1, 2]
    assert scalar == 2


class TinyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode):
        return {'loss': self.layer(torch.stack(inputs)).square().mean()}


def run(work_dir, max_iters, **kwargs):
    runner = Runner(
        TinyModel(),
        work_dir=str(work_dir),
        train_dataloader={
            # One sample eight times: the loss falls from step to step, whatever is drawn.
            'dataset': [{'inputs': torch.tensor([1.0, 2.0])}] * 8,
            'sampler': {'type': 'InfiniteSampler'},
            'batch_size': 2,
        },
        train_cfg={'by_epoch': False, 'max_iters': max_iters},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}},
        param_scheduler={'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 6},
        default_hooks={
            'logger': {'type': 'LoggerHook', 'interval': 1},
            'checkpoint': {'type': 'CheckpointHook', 'interval': 4, 'by_epoch': False},
        },
        experiment_name=f'{work_dir.name}-{max_iters}',
        **kwargs,
    )
    runner.train()
    return runner


@pytest.mark.slow
def test_a_runner_resumes_its_own_checkpoint(tmp_path):
    first = run(tmp_path, 4)
    losses = first.message_hub.get_scalar('train/loss').data[0]
    saved = load(tmp_path / 'iter_4.pth')
    history = saved['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    np.testing.assert_array_equal(history.data[0], losses)

    second = run(tmp_path, 6, resume=True)
    resumed = second.message_hub.get_scalar('train/loss').data[0]
    assert second.iter == 6
    assert len(resumed) == 6
    np.testing.assert_array_equal(resumed[:4], losses)
    assert (np.diff(resumed) < 0).all()  # it went on from the trained weights


# --- what is refused ---


def test_a_call_of_os_system_is_refused(save, tmp_path):
    proof = tmp_path / 'executed'
    path = save({'state_dict': Call(os.system, f'touch {proof}')})
    with pytest.raises(
        pickle.UnpicklingError, match=r'checkpoint\.pth is refused: it asks for (posix|nt)\.system'
    ):
        load(path)
    assert not proof.exists()


@pytest.mark.parametrize('function', [eval, exec, __import__, builtins.open])
def test_other_functions_are_refused(function, save):
    path = save(Call(function, 'never_run'))
    with pytest.raises(pickle.UnpicklingError, match=rf'asks for .*\b{function.__name__}\b'):
        load(path)


@pytest.mark.parametrize(
    'args',
    [
        (HistoryBuffer, '__class__'),
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, 'register_statistics'),
        (HistoryBuffer, 'mean', None),
        (HistoryBuffer,),
        (np.ndarray, 'mean'),
        (torch.Tensor, '__subclasses__'),
        ('text', 'mean'),
    ],
)
def test_getattr_of_anything_else_is_refused(args, save):
    path = save(Call(getattr, *args))
    with pytest.raises(pickle.UnpicklingError, match=r'is refused: it asks for getattr\('):
        load(path)


def test_the_stand_in_for_getattr_gives_the_four_statistics_only():
    for name in ('mean', 'max', 'min', 'current'):
        assert checkpoint._getattr(HistoryBuffer, name) is getattr(HistoryBuffer, name)
    for args in [
        (os, 'system'),
        (mmengine.logging, 'os'),
        (torch.zeros(2), 'mean'),
        (HistoryBuffer, np.zeros(2)),
        (),
    ]:
        with pytest.raises(pickle.UnpicklingError, match=r'^getattr\('):
            checkpoint._getattr(*args)
    assert getattr is builtins.getattr


def test_a_statistic_cannot_be_called_from_the_pickle(tmp_path):
    # getattr(HistoryBuffer, 'mean')('anything'), in pickle's opcodes.
    getattr_mean = (
        b'cbuiltins\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\nX\x04\0\0\0meantR'
    )
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2) + pickle.dumps(1001, 2)
    header = magic + pickle.dumps({'protocol_version': 1001, 'little_endian': True}, 2)
    path = tmp_path / 'checkpoint.pth'
    path.write_bytes(header + b'\x80\x02' + getattr_mean + b'(X\x08\0\0\0anythingtR.')
    with pytest.raises(
        pickle.UnpicklingError, match=r'is refused: it asks for <function HistoryBuffer\.mean'
    ):
        load(path)


# --- files that are no checkpoints ---


@pytest.mark.parametrize('keep', [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file(keep, save):
    path = save({'state_dict': {'weight': torch.rand(50, 50)}})
    content = path.read_bytes()
    size = keep if isinstance(keep, int) else int(keep * len(content))
    path.write_bytes(content[:size])
    with pytest.raises(RuntimeError, match=r'(?s)checkpoint\.pth cannot be loaded.*truncated'):
        load(path)


@pytest.mark.parametrize('content', [b'not a checkpoint\n', b'\x89PNG\r\n\x1a\n', b'{"a": 1}'])
def test_another_kind_of_file(content, tmp_path):
    path = tmp_path / 'notes.pth'
    path.write_bytes(content)
    with pytest.raises(
        RuntimeError, match=r'(?s)notes\.pth cannot be loaded.*another kind of file'
    ) as caught:
        load(path)
    assert 'weights_only' not in str(caught.value)  # torch's advice to switch the safety off


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without a GPU')
def test_a_whole_file_is_not_called_truncated(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    torch.save(torch.rand(3), path)
    with pytest.raises(RuntimeError, match=r'checkpoint\.pth cannot be loaded: .*CUDA') as caught:
        load(path, map_location='cuda')
    assert 'truncated' not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / 'absent.pth', tmp_path):
        with pytest.raises(FileNotFoundError, match=rf'{path.name} is not a file.*`load_from`'):
            load(path)


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save({'a': 1}, tmp_path / 'checkpoint.pth')
    assert load('~/checkpoint.pth') == {'a': 1}


class _Payload:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_downloads_are_as_restricted_as_files(tmp_path, monkeypatch):
    """mmengine hands URLs to torch.hub, which by its own default would run what it unpickles."""
    folder = tmp_path / 'served'
    folder.mkdir()
    torch.save({'state_dict': {'w': torch.ones(2)}}, folder / 'good.pth')
    torch.save(_Payload(str(tmp_path / 'ran')), folder / 'evil.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}'
        good = CheckpointLoader.load_checkpoint(f'{url}/good.pth')
        with pytest.raises(pickle.UnpicklingError, match='mkdir'):
            CheckpointLoader.load_checkpoint(f'{url}/evil.pth')
        server.shutdown()
    assert torch.equal(good['state_dict']['w'], torch.ones(2))
    assert not (tmp_path / 'ran').exists()
