"""A file that breaks later ends the training with its name; the last checkpoint stays."""

import pytest
import torch
from mmengine.dataset import Compose

from normplug.launch import UserError
from normplug.preflight import data
from normplug.preflight.data import unreadable_files_explained


@pytest.fixture
def unseen(monkeypatch):
    """The check at the start decodes the first image alone, as it does 32 of a large dataset."""
    monkeypatch.setattr(data, '_DECODED', 1)


@pytest.mark.slow
@pytest.mark.parametrize(('spoiled', 'workers'), [('images', 0), ('labels', 2)])
def test_training_ends_with_the_name(segmentation, unseen, tool, capsys, workers, spoiled):
    path = segmentation.folder / f'data/{spoiled}/3.png'
    good = path.read_bytes()
    segmentation.truncate(path)
    options = [f'train_dataloader.num_workers={workers}', 'train_cfg.max_iters=2']
    assert tool('train')(['config.py', '--cfg-options', *options]) == 2
    error = capsys.readouterr().err.split('tools/train.py: error: ')[1]
    assert error.startswith(f'data/{spoiled}/3.png is damaged')
    assert 'copy or download it again' in error
    assert len(error.splitlines()) == 1

    # Images 0 and 1 made the first step.
    last = (segmentation.folder / 'work/last_checkpoint').read_text()
    assert last.endswith('iter_1.pth')
    assert torch.load(last, weights_only=False)['meta']['iter'] == 1
    path.write_bytes(good)
    options.append(f'experiment_name={segmentation.folder.name}_2')
    assert tool('train')(['config.py', '--resume', '--cfg-options', *options]) == 0
    assert (segmentation.folder / 'work/iter_2.pth').exists()


@pytest.mark.slow
def test_testing_ends_with_the_name(detection, unseen, tool, capsys):
    assert tool('train')(['config.py', '--cfg-options', 'train_cfg.max_iters=1']) == 0
    (detection.images / '3.png').write_bytes(b'')
    name = f'experiment_name={detection.folder.name}_2'
    argv = ['config.py', 'work/iter_1.pth', '--cfg-options', name]
    assert tool('test')(argv) == 2
    assert 'error: data/images/3.png is empty: copy' in capsys.readouterr().err


def test_errors_of_good_files_pass_through(segmentation):
    def fails(data):
        raise KeyError('mine')

    sample = {'img_path': str(segmentation.images / '0.png')}
    original = Compose.__call__
    with pytest.raises(KeyError, match='mine'), unreadable_files_explained():
        Compose([fails])(sample)
    assert Compose.__call__ is original


def test_a_file_that_went_missing(segmentation):
    def fails(data):
        raise FileNotFoundError

    sample = {'img_path': str(segmentation.images / '9.png')}
    with pytest.raises(UserError, match=r'9\.png is missing: copy'), unreadable_files_explained():
        Compose([fails])(sample)
