import re

from PIL import Image
from sklearn.datasets import load_digits


def scans_of(folder):
    return [int(re.fullmatch(r'\d{5}_scan(\d{4})\.png', p.name)[1]) for p in folder.iterdir()]


def test_classes_are_balanced_and_their_own(digits):
    target = load_digits().target
    for split, per_class in (('train', 10), ('val', 2)):
        root = digits / 'classification' / split
        assert sorted(path.name for path in root.iterdir()) == [str(k) for k in range(10)]
        for k in range(10):
            scans = scans_of(root / str(k))
            assert len(scans) == per_class
            assert set(target[scans]) == {k}


def test_pictures_are_rgb_of_half_the_side(digits):
    pictures = list((digits / 'classification').rglob('*.png'))
    assert len(pictures) == 120
    for path in pictures:
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ('PNG', 'RGB', (48, 48))


def test_the_splits_share_no_scan(digits):
    train, val = (
        {scan for k in range(10) for scan in scans_of(digits / 'classification' / split / str(k))}
        for split in ('train', 'val')
    )
    assert min(len(train), len(val)) > 10
    assert not train & val
