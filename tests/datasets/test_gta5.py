"""The GTA5 dataset on small files in the form of the released ones."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from normplug.errors import UserError
from normplug.launch import load_config
from normplug.preflight.data import check_data
from tests.configs.test_configs import CONFIGS

pytest.importorskip('mmseg')

CONFIG = str(CONFIGS / 'ibn_gta5/fcn_r50-d8_syncbn_table6_gta5.py')
# Cityscapes' own table: the label ids of the classes that are evaluated.
LABEL_IDS = {
    'road': 7, 'sidewalk': 8, 'building': 11, 'wall': 12, 'fence': 13, 'pole': 17,
    'traffic light': 19, 'traffic sign': 20, 'vegetation': 21, 'terrain': 22, 'sky': 23,
    'person': 24, 'rider': 25, 'car': 26, 'truck': 27, 'bus': 28, 'train': 31, 'motorcycle': 32,
    'bicycle': 33,
}  # fmt: skip
SIZE = 70, 38  # 1914x1052, nearly the aspect of 1024x563


def save_palette(path, labels):
    picture = Image.fromarray(labels.astype(np.uint8), 'P')
    picture.putpalette([value for i in range(256) for value in (i, 255 - i, 40)])
    picture.save(path)


@pytest.fixture
def gta5(tmp_path, monkeypatch):
    """Six images and palette maps with all 35 label ids, where the configs look for them."""
    folder = tmp_path / 'data/gta5'
    for name in ('images', 'labels'):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(1, 7):
        pixels = rng.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'images/{number:05d}.png')
        labels = np.resize(rng.permutation(35), SIZE[::-1])
        save_palette(folder / f'labels/{number:05d}.png', labels)
    (folder / 'train.txt').write_text('00001\n00002\n00003\n00004\n')
    (folder / 'val.txt').write_text('00005\n00006\n')
    monkeypatch.chdir(tmp_path)
    return folder


def dataset(phase, **changes):
    config = Config.fromfile(CONFIG)[f'{phase}_dataloader'].dataset
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build({**config, **changes})


def test_label_ids_become_train_ids(gta5):
    data = dataset('val')
    assert list(LABEL_IDS) == list(data.metainfo['classes'])
    train_ids = {label: number for number, label in enumerate(LABEL_IDS.values())}
    for sample in data:
        read = sample['data_samples'].gt_sem_seg.data.squeeze().numpy()
        name = sample['data_samples'].img_path.replace('images', 'labels')
        ids = np.asarray(Image.open(name))
        assert np.array_equal(read, np.vectorize(lambda i: train_ids.get(i, 255))(ids))


def test_sizes_of_the_recipe(gta5):
    for sample in dataset('train'):
        assert sample['inputs'].shape == (3, 512, 1024)
        assert sample['data_samples'].gt_sem_seg.shape == (512, 1024)
    for sample in dataset('val'):
        assert sample['inputs'].shape == (3, 563, 1024)
        # Scored at the size of the image.
        assert sample['data_samples'].gt_sem_seg.shape == SIZE[::-1]


def test_parts_of_the_split(gta5):
    names = {
        phase: [data.get_data_info(i)['img_path'] for i in range(len(data))]
        for phase, data in {phase: dataset(phase) for phase in ('train', 'val', 'test')}.items()
    }
    assert names['train'] == [f'data/gta5/images/{number:05d}.png' for number in range(1, 5)]
    assert names['val'] == names['test'] == [f'data/gta5/images/0000{i}.png' for i in (5, 6)]
    assert len(dataset('val', ann_file='')) == 6


def test_lists_of_the_released_split(gta5):
    io = pytest.importorskip('scipy.io')
    from normplug.datasets.gta5_split import _main, write_lists

    numbers = {'trainIds': [[4], [10]], 'valIds': [[24966]], 'testIds': [[1], [2], [3]]}
    io.savemat(gta5 / 'split.mat', numbers)
    assert write_lists(gta5 / 'split.mat') == {'train': 2, 'val': 1, 'test': 3}
    assert (gta5 / 'train.txt').read_text() == '00004\n00010\n'
    assert (gta5 / 'val.txt').read_text() == '24966\n'
    assert (gta5 / 'test.txt').read_text() == '00001\n00002\n00003\n'
    assert _main([str(gta5 / 'split.mat')]) == 0


@pytest.mark.parametrize('content', ['nothing', 'text', 'other variables'])
def test_another_file_is_no_split(gta5, content, capsys):
    io = pytest.importorskip('scipy.io')
    from normplug.datasets.gta5_split import _main

    path = gta5 / 'other.mat'
    if content == 'text':
        path.write_text('this is no MATLAB file, but it is longer than its header would be')
    elif content == 'other variables':
        io.savemat(path, {'classes': [1]})
    assert _main([str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert (gta5 / 'val.txt').read_text() == '00005\n00006\n'  # as it was


def refused(options=None):
    with pytest.raises(UserError) as error:
        check_data(load_config(CONFIG, options), ('train', 'val'))
    return str(error.value)


def test_good_files_are_accepted(gta5):
    check_data(load_config(CONFIG), ('train', 'val'))


def test_absent_data_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'train_dataloader.dataset.data_root: data/gta5/' in refused()


def test_a_missing_list_is_named(gta5):
    (gta5 / 'val.txt').unlink()
    assert 'val_dataloader.dataset.ann_file: data/gta5/val.txt' in refused()


def test_the_released_split_itself_is_no_list(gta5):
    (gta5 / 'split.mat').touch()
    text = refused({'train_dataloader.dataset.ann_file': 'split.mat'})
    assert 'gta5_split' in text


def test_other_classes_are_refused(gta5):
    text = refused({'train_dataloader.dataset.metainfo': {'classes': ('road', 'sky')}})
    assert 'drop metainfo.classes' in text


def test_labels_in_colours_are_refused(gta5):
    Image.new('RGB', SIZE).save(gta5 / 'labels/00002.png')
    assert 'maps of labels with colours: 1 (data/gta5/labels/00002.png' in refused()


def test_label_ids_that_do_not_exist_are_refused(gta5):
    save_palette(gta5 / 'labels/00002.png', np.full(SIZE[::-1], 35))
    assert 'not classes: 1 (data/gta5/labels/00002.png with 35)' in refused()


def test_maps_of_another_size_are_refused(gta5):
    save_palette(gta5 / 'labels/00002.png', np.full((20, 20), 7))
    assert 'data/gta5/labels/00002.png 20x20, image 70x38' in refused()
