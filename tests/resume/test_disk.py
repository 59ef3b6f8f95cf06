"""Checks of folders and of free space."""

import io
import os
import shutil
import types

import pytest
import torch
from torch import nn

from normplug.resume.disk import check_room, check_writable, checkpoint_bytes


@pytest.mark.parametrize(
    ('optimizer', 'cls'),
    [
        ({'type': 'SGD'}, torch.optim.SGD),
        ({'type': 'SGD', 'momentum': 0.9}, torch.optim.SGD),
        ({'type': 'Adam', 'amsgrad': True}, torch.optim.Adam),
        ({'type': 'AdamW'}, torch.optim.AdamW),
        ({'type': 'RMSprop'}, torch.optim.RMSprop),
        ({'type': 'Adagrad'}, torch.optim.Adagrad),
    ],
    ids=lambda value: '-'.join(map(str, value.values())) if isinstance(value, dict) else '',
)
def test_the_estimate_is_the_size_of_a_real_checkpoint(optimizer, cls):
    model = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300), nn.Linear(300, 300))
    model[0].requires_grad_(False)
    options = {key: value for key, value in optimizer.items() if key != 'type'}
    trained = cls([p for p in model.parameters() if p.requires_grad], lr=0.1, **options)
    model(torch.randn(2, 300)).sum().backward()
    trained.step()
    file = io.BytesIO()
    torch.save({'state_dict': model.state_dict(), 'optimizer': trained.state_dict()}, file)
    overhead = len(file.getvalue()) - checkpoint_bytes(model, optimizer)
    assert 0 < overhead < 10_000


def test_room(tmp_path, monkeypatch):
    check_room(tmp_path / 'not' / 'there', 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OSError, match='make room or name a folder on another disk'):
        check_room(tmp_path, 2 * free)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=5))
    check_room(tmp_path, 5)
    with pytest.raises(OSError, match=r'0\.0 MB are free'):
        check_room(tmp_path, 6)


def test_writable(tmp_path):
    check_writable(tmp_path)
    check_writable(tmp_path / 'not' / 'there')
    (tmp_path / 'file').touch()
    with pytest.raises(NotADirectoryError, match='is a file, not a folder'):
        check_writable(tmp_path / 'file' / 'below')
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
            check_writable(folder)
    finally:
        os.seteuid(user)
