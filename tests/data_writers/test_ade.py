import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO


def test_files_are_paired_by_name(digits):
    for split, folder, count in (('train', 'training', 50), ('val', 'validation', 10)):
        names = [f'ADE_{split}_{k:08d}' for k in range(1, count + 1)]
        images = sorted((digits / 'ade/images' / folder).iterdir())
        labels = sorted((digits / 'ade/annotations' / folder).iterdir())
        assert [path.name for path in images] == [f'{name}.jpg' for name in names]
        assert [path.name for path in labels] == [f'{name}.png' for name in names]


def test_labels_are_eight_bit_and_every_class_occurs(digits):
    seen = np.zeros(256, int)
    for path in (digits / 'ade/annotations').rglob('*.png'):
        with Image.open(path) as labels:
            assert (labels.mode, labels.size) == ('L', (96, 96))
            seen += np.bincount(np.asarray(labels).ravel(), minlength=256)
    assert np.flatnonzero(seen).tolist() == list(range(12))
    # Most is photograph; the ignored band is thin.
    assert seen[11] > 0.5 * seen.sum()
    assert seen[0] < 0.15 * seen.sum()


def test_labels_are_those_of_the_coco_form(digits):
    picture = (digits / 'ade/images/training/ADE_train_00000002.jpg').read_bytes()
    assert picture == (digits / 'coco/train/000000000002.jpg').read_bytes()
    coco = COCO(digits / 'coco/annotations/instances_train.json')
    path = digits / 'ade/annotations/training/ADE_train_00000002.png'
    labels = np.asarray(Image.open(path))
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=2))
    assert len(annotations) >= 2
    for annotation in annotations:
        inside = labels[coco.annToMask(annotation).astype(bool)]
        assert set(inside) <= {0, annotation['category_id']}
        assert (inside == annotation['category_id']).mean() > 0.5


@pytest.mark.parametrize(('folder', 'count'), [('training', 50), ('validation', 10)])
def test_mmseg_reads_it_as_ade20k(digits, folder, count):
    datasets = pytest.importorskip('mmseg.datasets')
    prefix = {'img_path': f'images/{folder}', 'seg_map_path': f'annotations/{folder}'}
    steps = [datasets.LoadAnnotations()]
    data = datasets.ADE20KDataset(data_root=str(digits / 'ade'), data_prefix=prefix, pipeline=steps)
    assert len(data) == count
    for sample in data:
        labels = np.asarray(Image.open(sample['seg_map_path']))
        # The digits from 0 on, then the photograph; ADE20K's 0 becomes 255, which is ignored.
        read = sample['gt_seg_map']
        assert np.array_equal(read, np.where(labels == 0, 255, labels.astype(int) - 1))
