import numpy as np
import pytest
from PIL import Image

DOMAINS = ('cityscapes_day', 'cityscapes_night')
FORMATS = ('cityscapes', *DOMAINS)
IMAGE, LABELS = '_leftImg8bit.png', '_gtFine_labelTrainIds.png'


@pytest.mark.parametrize('domain', FORMATS)
def test_files_are_paired_by_split_city_and_name(digits, domain):
    for split, count in (('train', 50), ('val', 10)):
        images, labels = digits / domain / 'leftImg8bit' / split, digits / domain / 'gtFine' / split
        frames = {
            path.relative_to(images).as_posix().removesuffix(IMAGE) for path in images.rglob('*.*')
        }
        assert len(frames) == count
        assert frames == {
            path.relative_to(labels).as_posix().removesuffix(LABELS) for path in labels.rglob('*.*')
        }
    assert (digits / domain / 'leftImg8bit/train/alba/alba_000000_000019_leftImg8bit.png').is_file()


@pytest.mark.parametrize('domain', FORMATS)
def test_no_city_is_in_two_splits(digits, domain):
    train, val = (
        {path.name for path in (digits / domain / 'gtFine' / split).iterdir()}
        for split in ('train', 'val')
    )
    assert min(len(train), len(val)) >= 2
    assert not train & val


@pytest.mark.parametrize('domain', FORMATS)
def test_train_ids(digits, domain):
    seen = np.zeros(256, int)
    for path in (digits / domain / 'gtFine').rglob('*.png'):
        with Image.open(path) as labels:
            assert (labels.mode, labels.size) == ('L', (96, 96))
            seen += np.bincount(np.asarray(labels).ravel(), minlength=256)
    assert np.flatnonzero(seen).tolist() == [*range(11), 255]
    assert seen[10] > 0.5 * seen.sum()
    assert seen[255] < 0.15 * seen.sum()


def test_the_domains_look_different(digits):
    def photo_brightness(domain):
        means = []
        for path in sorted((digits / domain / 'leftImg8bit/train').rglob('*.png')):
            label = digits / domain / 'gtFine/train' / path.parent.name
            labels = np.asarray(Image.open(label / path.name.replace(IMAGE, LABELS)))
            means.append(np.asarray(Image.open(path))[labels == 10].mean())
        return np.array(means)

    day, night = map(photo_brightness, DOMAINS)
    assert day.min() > night.max()


@pytest.mark.parametrize('domain', FORMATS)
@pytest.mark.parametrize(('split', 'count'), [('train', 50), ('val', 10)])
def test_mmseg_reads_it_as_cityscapes(digits, domain, split, count):
    datasets = pytest.importorskip('mmseg.datasets')
    prefix = {'img_path': f'leftImg8bit/{split}', 'seg_map_path': f'gtFine/{split}'}
    data = datasets.CityscapesDataset(
        data_root=str(digits / domain), data_prefix=prefix, pipeline=[datasets.LoadAnnotations()]
    )
    assert len(data) == count
    for sample in data:
        assert sample['img_path'].endswith(IMAGE)
        labels = np.asarray(Image.open(sample['seg_map_path']))
        assert np.array_equal(sample['gt_seg_map'], labels)
