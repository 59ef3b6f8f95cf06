"""What a training resumes from is written whole, or ends it."""

import pytest
from mmengine.fileio import get_file_backend

from normplug.errors import TrainingError
from normplug.resume import storage


def test_the_backend_of_mmengine(tmp_path):
    backend = get_file_backend(tmp_path, backend_args={'backend': storage.BACKEND})
    backend.put(b'bytes', tmp_path / 'x')
    backend.put_text('täxt', tmp_path / 'y')
    assert backend.get(tmp_path / 'x') == b'bytes'
    assert backend.get_text(tmp_path / 'y') == 'täxt'


def test_a_failure_ends_the_training_and_says_how_to_go_on(tmp_path):
    (tmp_path / 'file').touch()
    backend = get_file_backend(tmp_path, backend_args={'backend': storage.BACKEND})
    with pytest.raises(storage.CheckpointWriteError, match='continue with --resume') as error:
        backend.put(b'', tmp_path / 'file' / 'x')
    assert isinstance(error.value, TrainingError)
    assert isinstance(error.value, OSError)
    assert f'{tmp_path / "file" / "x"} cannot be written' in str(error.value)
