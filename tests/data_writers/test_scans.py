import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_image

from normplug.data.scans import load_material


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_the_splits_share_no_scan_and_use_all(seed):
    train, val = (np.concatenate(load_material(s, seed).by_class) for s in ('train', 'val'))
    assert sorted([*train, *val]) == list(range(1797))
    assert len(val) == 359


def test_classes_are_those_of_the_scans_and_none_is_missing():
    target = load_digits().target
    for split in ('train', 'val'):
        for k, scans in enumerate(load_material(split, 0).by_class):
            assert len(scans) >= 20
            assert (target[scans] == k).all()


def test_the_seed_decides_the_split():
    first, again, other = (load_material('val', seed).by_class[3] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert set(first) != set(other)


def test_the_splits_share_no_column_of_a_photograph():
    for index, name in enumerate(('china.jpg', 'flower.jpg')):
        regions = [load_material(split, 0).photos[index] for split in ('train', 'val')]
        assert np.array_equal(np.concatenate(regions, axis=1), load_sample_image(name))


def test_bad_names_are_named():
    with pytest.raises(ValueError, match="split 'test' is not one of train, val"):
        load_material('test', 0)
    with pytest.raises(ValueError, match=r"photos \('dog.jpg',\) must be .* china.jpg, flower.jpg"):
        load_material('val', 0, ('dog.jpg',))
