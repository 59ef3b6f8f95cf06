from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion
from sklearn.datasets import load_digits

from normplug.data.scene import SceneMaker, SceneSettings

SETTINGS = SceneSettings(size=96, light=None)


@pytest.fixture(scope='module')
def scenes():
    maker = SceneMaker(SETTINGS, seed=0)
    return [maker.scene('train', index) for index in range(150)]


def box(mask):
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def test_shapes_and_types(scenes):
    for scene in scenes:
        count = len(scene.labels)
        assert (scene.image.shape, scene.image.dtype) == ((96, 96, 3), np.uint8)
        assert (scene.masks.shape, scene.masks.dtype) == ((count, 96, 96), bool)
        assert (scene.unsure.shape, scene.unsure.dtype) == ((96, 96), bool)
        assert scene.scans.shape == (count,)


def test_labels_are_those_of_the_scans(scenes):
    target = load_digits().target
    for scene in scenes:
        assert (target[scene.scans] == scene.labels).all()


def test_masks_are_disjoint_and_large_enough(scenes):
    for scene in scenes:
        assert scene.masks.sum(0).max(initial=0) <= 1
        assert (scene.masks.sum((1, 2)) >= SETTINGS.min_area * 96**2).all()


def test_a_mask_lies_on_its_digit(scenes):
    # A digit has one solid colour: away from its edge a mask covers nothing else. What is sure is
    # covered by 85 % at least, and by a later digit's soft edge by 15 % at most: 0.28 of 255.
    checked = 0
    for scene in scenes:
        for mask in scene.masks:
            inside = scene.image[binary_erosion(mask, iterations=3) & ~scene.unsure].astype(int)
            if len(inside):
                checked += 1
                assert np.abs(inside - np.median(inside, 0)).max() <= 71
                assert np.abs(inside - np.median(inside, 0)).mean() <= 4
    assert checked > 200


def test_scenes_vary_as_promised(scenes):
    counts = np.array([len(scene.labels) for scene in scenes])
    low, high = SceneSettings().digits
    assert set(counts) == {0, *range(low, high + 1)}
    assert 1 <= (counts == 0).sum() <= 12
    masks = [mask for scene in scenes for mask in scene.masks]
    assert len({label for scene in scenes for label in scene.labels}) == 10
    at_border = [m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any() for m in masks]
    assert 0.1 < np.mean(at_border) < 0.6
    heights = [box(mask)[3] - box(mask)[1] for mask in masks]
    assert min(heights) < 0.2 * 96
    assert max(heights) > 0.4 * 96


def test_some_digits_overlap(scenes):
    overlapping = 0
    for scene in scenes:
        boxes = [box(mask) for mask in scene.masks]
        for k, (x0, y0, x1, y1) in enumerate(boxes):
            overlapping += any(
                x0 < b[2] and b[0] < x1 and y0 < b[3] and b[1] < y1 for b in boxes[k + 1 :]
            )
    assert overlapping > 50


def test_the_pasted_digit_is_the_scan_upright():
    plain = replace(SETTINGS, side=(0.8, 0.8), centre=(0.5, 0.5), rotation=0.0)
    maker = SceneMaker(plain, seed=0)
    scans = load_digits().images / 16
    for index in range(20):
        scene = maker.scene('train', index, labels=[index % 10])
        left = round(96 * 0.1)
        window = (left, left, 96 - left, 96 - left)
        mask = Image.fromarray(scene.masks[0].astype(np.uint8) * 255)
        small = np.asarray(mask.resize((8, 8), Image.Resampling.BOX, window)) / 255
        scan = scans[scene.scans[0]]
        likeness = np.corrcoef(small.ravel(), scan.ravel())[0, 1]
        assert likeness > 0.85
        turned = [scan.T, scan[::-1], np.rot90(scan)] if index % 10 in (2, 4, 5, 7) else []
        for other in turned:
            assert likeness > np.corrcoef(small.ravel(), other.ravel())[0, 1] + 0.1


def test_rotation_turns_by_its_angle_at_most_and_keeps_the_size():
    areas = []
    for rotation in (0.0, 45.0):
        maker = SceneMaker(
            replace(SETTINGS, side=(0.5, 0.5), centre=(0.5, 0.5), rotation=rotation), seed=0
        )
        areas.append([maker.scene('train', i, labels=[0]).masks.sum() for i in range(5)])
    # The same draws but for the angle: the same scans with the same area, within the pixels.
    assert areas[0] == pytest.approx(areas[1], rel=0.05)
    assert areas[0] != areas[1]


def test_a_scene_depends_on_seed_split_and_index_only():
    first, second = SceneMaker(SETTINGS, 0), SceneMaker(SETTINGS, 0)
    second.scene('val', 7)
    one, other = (asdict(maker.scene('train', 3)) for maker in (first, second))
    for key, value in one.items():
        assert np.array_equal(value, other[key])
    for maker, split, index in [(SceneMaker(SETTINGS, 1), 'train', 3), (first, 'val', 3)]:
        assert not np.array_equal(maker.scene(split, index).image, one['image'])
    assert not np.array_equal(first.scene('train', 4).image, one['image'])


def test_what_finds_no_place():
    hidden = SceneMaker(replace(SETTINGS, min_visible=1.1), 0)
    assert len(hidden.scene('train', 0).labels) == 0
    with pytest.raises(RuntimeError, match='digit 3 found no place in scene 5 of val: lower min_v'):
        hidden.scene('val', 5, labels=[3])


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match='seed -1 must not be negative'):
        SceneMaker(SETTINGS, -1)
