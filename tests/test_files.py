"""Atomic writes, and the checks of the place for them."""

import errno
import os
import shutil
import subprocess
import types

import pytest

from normplug import files
from normplug.errors import UserError


def test_writes_whole_files_into_folders_that_it_makes(tmp_path):
    path = tmp_path / 'a' / 'b' / 'file'
    files.write(path, b'one')
    files.write(str(path), b'two')
    assert path.read_bytes() == b'two'
    assert [entry.name for entry in path.parent.iterdir()] == ['file']


def test_permissions_are_those_of_any_new_file(tmp_path):
    files.write(tmp_path / 'ours', b'')
    (tmp_path / 'other').touch()
    assert (tmp_path / 'ours').stat().st_mode == (tmp_path / 'other').stat().st_mode


@pytest.mark.parametrize('failing', ['fsync', 'replace'])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / 'file'
    files.write(path, b'old')

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(files.WriteError, match='No space left') as error:
        files.write(path, b'new and longer')
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]
    assert error.value.errno == errno.ENOSPC
    assert isinstance(error.value, OSError)
    assert isinstance(error.value, UserError)
    for part in (str(path), 'MB free'):
        assert part in str(error.value)
    assert '--resume' not in str(error.value)  # it may be a table


def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    files.write(path, b'old')

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, b'new')
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_below_a_file(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(files.WriteError, match=r'^--out: .* cannot be written'):
        files.write(tmp_path / 'file' / 'x', b'', '--out')


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    other = ['epoch_1.pth', '.hidden', 'a.normplug-tmp', '.epoch_1.pth.tmp']
    other.append(f'.epoch_2.pth.{os.getppid()}.normplug-tmp')  # of a process that lives
    dead = subprocess.Popen(['true'])
    dead.wait()
    for name in [*other, f'.epoch_2.pth.{dead.pid}.normplug-tmp']:
        (tmp_path / name).touch()
    assert files.remove_leftovers(tmp_path) == [f'.epoch_2.pth.{dead.pid}.normplug-tmp']
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(other)


def test_room(tmp_path, monkeypatch):
    files.check_room(tmp_path / 'not' / 'there', 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OSError, match='make room or name a folder on another disk'):
        files.check_room(tmp_path, 2 * free)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=5))
    files.check_room(tmp_path, 5)
    with pytest.raises(OSError, match=r'0\.0 MB are free'):
        files.check_room(tmp_path, 6)


def test_writable(tmp_path):
    files.check_writable(tmp_path)
    files.check_writable(tmp_path / 'not' / 'there')
    (tmp_path / 'file').touch()
    with pytest.raises(NotADirectoryError, match='is a file, not a folder'):
        files.check_writable(tmp_path / 'file' / 'below')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_no_permission(tmp_path):
    folder = tmp_path / 'closed'
    folder.mkdir(mode=0o500)
    user = os.geteuid()
    tmp_path.chmod(0o755)
    try:
        if user == 0:
            os.seteuid(65534)  # to root, everything is writable
        with pytest.raises(PermissionError, match='is not writable'):
            files.check_writable(folder)
    finally:
        os.seteuid(user)
