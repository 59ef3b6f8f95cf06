"""Which checkpoint is the last whole one."""

import pytest
import torch

from normplug.resume.find import last_whole_checkpoint


def save(path, iterations, **more):
    checkpoint = {'meta': {'iter': iterations}, 'state_dict': {}, 'optimizer': {}, **more}
    torch.save(checkpoint, path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Numbers that sort otherwise as text, written in another order than they were trained."""
    for epoch in (10, 2, 9):
        save(tmp_path / f'epoch_{epoch}.pth', 100 * epoch)
    save(tmp_path / 'best_epoch_11.pth', 1100)
    save(tmp_path / 'iter_1050.pth', 1050)
    return tmp_path


def point(folder, path):
    (folder / 'last_checkpoint').write_text(str(path))


def test_what_last_checkpoint_names(folder):
    point(folder, folder / 'epoch_2.pth')
    assert last_whole_checkpoint(folder) == (str(folder / 'epoch_2.pth'), '')


def test_most_iterations_of_both_kinds(folder):
    path, reason = last_whole_checkpoint(folder)
    assert path == str(folder / 'iter_1050.pth')
    assert reason == f'{folder}/last_checkpoint is missing'
    (folder / 'iter_1050.pth').unlink()
    assert last_whole_checkpoint(str(folder))[0] == str(folder / 'epoch_10.pth')


@pytest.mark.parametrize('size', [0, 100, -1])
def test_truncated_ones_are_passed_over(folder, size):
    for name in ('iter_1050.pth', 'epoch_10.pth'):
        path = folder / name
        path.write_bytes(path.read_bytes()[:size])
    point(folder, folder / 'epoch_10.pth')
    path, reason = last_whole_checkpoint(folder)
    assert path == str(folder / 'epoch_9.pth')
    assert reason.endswith('epoch_10.pth, which is truncated or holds weights only')


def test_weights_alone_are_passed_over(folder):
    torch.save({'meta': {'iter': 3000}, 'state_dict': {}}, folder / 'epoch_30.pth')
    torch.save({}, folder / 'epoch_31.pth')
    torch.save([], folder / 'epoch_32.pth')
    assert last_whole_checkpoint(folder)[0] == str(folder / 'iter_1050.pth')


def test_beside_the_file_that_is_named(folder, tmp_path_factory):
    """The checkpoint hook's out_dir, or a work_dir that was moved."""
    work_dir = tmp_path_factory.mktemp('work')
    point(work_dir, folder / 'epoch_12.pth')
    assert last_whole_checkpoint(work_dir)[0] == str(folder / 'iter_1050.pth')
    point(folder, work_dir / 'epoch_10.pth')
    assert last_whole_checkpoint(folder)[0] == str(folder / 'iter_1050.pth')


def test_nothing(tmp_path):
    assert last_whole_checkpoint(tmp_path) == (None, f'{tmp_path}/last_checkpoint is missing')
    point(tmp_path, '')
    assert last_whole_checkpoint(tmp_path) == (None, f'{tmp_path}/last_checkpoint is empty')
    assert last_whole_checkpoint(tmp_path / 'absent')[0] is None
