from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.datasets import load_digits

from normplug.data import clip
from normplug.data.clip import MOTIONS, ClipMaker, clip_settings, make_track
from normplug.data.scene import SceneSettings

SETTINGS = clip_settings(SceneSettings(size=96))
DARK = replace(SETTINGS, light=None)
CLASSES, FRAMES = SETTINGS.classes, SETTINGS.frames
KINDS = ('x', 'y', 'side')


@pytest.fixture(scope='module')
def tracks():
    """For each motion (x, y, side) of 3000 clips, each (clips, T); other clips for each motion."""
    found = {}
    for number, motion in enumerate(MOTIONS):
        rng = np.random.default_rng(number)
        drawn = [make_track(rng, motion, SETTINGS) for _ in range(3000)]
        found[motion] = [np.stack([getattr(t, k) for t in drawn]) for k in KINDS]
    return found


def test_classes_are_pairs_numbered_as_the_folders_are():
    assert list(CLASSES) == sorted(CLASSES)
    assert len(CLASSES) == 8
    target, maker = load_digits().target, ClipMaker(SETTINGS, 0)
    names = {0: 'zero', 1: 'one'}
    for index in range(9):
        made = maker.clip('val', index)
        assert made.label == index % 8
        assert CLASSES[made.label].startswith(names[target[made.scan]])


def test_no_moment_tells_the_motion(tracks):
    for frame in (0, 1, 13, 40, FRAMES - 1):
        at = {m: np.stack([v[:, frame] for v in values]) for m, values in tracks.items()}
        for motion, values in at.items():
            for kind in range(3):
                assert ks_2samp(values[kind], at['resting'][kind]).pvalue > 0.01, (motion, kind)
            # Nor do two of them together.
            assert np.abs(np.corrcoef(values) - np.eye(3)).max() < 0.06


def test_motions_draw_alike_and_change_one_thing():
    for seed in range(20):
        made = {
            m: (rng := np.random.default_rng(seed), make_track(rng, m, SETTINGS)) for m in MOTIONS
        }
        assert len({rng.random() for rng, _ in made.values()}) == 1
        still = made['resting'][1]
        for motion, (_, track) in made.items():
            for kind in KINDS:
                values = getattr(track, kind)
                if MOTIONS[motion] == kind:
                    assert values[0] == getattr(still, kind)[0]
                    low, high = SETTINGS.side if kind == 'side' else SETTINGS.centre
                    assert np.abs(np.diff(values)).max() < 0.2 * (high - low)  # without a jump
                else:
                    assert np.array_equal(values, getattr(still, kind))


@pytest.mark.parametrize('span', [32, 64])  # 16 frames at interval 2, and 32
def test_a_sample_shows_a_motion(tracks, span):
    for motion, values in tracks.items():
        if motion == 'resting':
            continue
        changed = values[KINDS.index(MOTIONS[motion])]
        low, high = changed.min(), changed.max()
        for start in (0, FRAMES - span):
            seen = changed[:, start : start + span]
            assert (np.ptp(seen, axis=1) > 0.5 * (high - low)).all()


@pytest.mark.parametrize('index', range(16))
def test_the_pixels_move_as_the_label_says(monkeypatch, index):
    magenta = np.array([1, 0, 1], np.float32)
    monkeypatch.setattr(clip, 'draw_colour', lambda rng, settings: magenta)
    made = ClipMaker(replace(DARK, contrast=-1.0), 0).clip('train', index)
    assert (made.frames.shape, made.frames.dtype) == ((FRAMES, 48, 48, 3), np.uint8)
    digit = (made.frames[..., [0, 2]] > 190).all(-1) & (made.frames[..., 1] < 65)
    assert digit.any((1, 2)).all()
    height = np.array([np.nonzero(mask)[0].mean() for mask in digit])
    across = np.array([np.nonzero(mask)[1].mean() for mask in digit])
    side = np.sqrt(digit.sum((1, 2)))
    # The ink's centre and area are not the scan's, but change as its centre and side do.
    assert np.abs(height - made.track.y * 48).max() < 3
    assert np.ptp(side / made.track.side) < 0.25 * np.mean(side / made.track.side)
    motion = CLASSES[made.label].partition('_')[2]
    ranges = {'bouncing': np.ptp(height) / 24, 'pulsing': np.ptp(side) / side.mean()}
    ranges['sliding'] = np.ptp(across) / 24
    # Half of its range or more, of which the border hides a part; the others hardly move.
    for name, seen in ranges.items():
        assert (seen > 0.3) if name == motion else (seen < 0.12), (motion, name, seen)


def test_the_photograph_moves_whatever_the_motion():
    maker = ClipMaker(DARK, 0)
    corners = [maker.clip('train', i).frames[[0, -1], :6, :6].astype(float) for i in range(16)]
    moved = [np.abs(first - later).mean() for first, later in corners]
    assert np.median(moved) > 4


def test_each_clip_has_its_own_light_and_one_for_all_its_frames():
    lit, dark = (
        [ClipMaker(s, 0).clip('train', i).frames.astype(float) for i in range(8)]
        for s in (SETTINGS, DARK)
    )
    changes = np.array([(a - b).mean((1, 2, 3)) for a, b in zip(lit, dark, strict=True)])
    assert changes.mean(1).std() > 20  # of 255, among clips
    # Within one the content varies, and with it what the light changes.
    assert np.median(changes.std(1)) < 3


def test_a_clip_depends_on_seed_split_and_index_only():
    first, second = ClipMaker(SETTINGS, 0), ClipMaker(SETTINGS, 0)
    second.clip('val', 7)
    one, other = first.clip('train', 3), second.clip('train', 3)
    assert np.array_equal(one.frames, other.frames)
    assert (one.label, one.scan) == (other.label, other.scan)
    for maker, split, index in [
        (ClipMaker(SETTINGS, 1), 'train', 3),
        (first, 'val', 3),
        (first, 'train', 11),
    ]:
        assert not np.array_equal(maker.clip(split, index).frames, one.frames)


def test_frames_are_what_they_were():
    # What these are made of may round otherwise in other builds of Pillow and SciPy.
    then = [
        [[75, 69, 47], [12, 2, 0], [34, 15, 16]],
        [[39, 40, 12], [22, 0, 0], [128, 122, 85]],
        [[50, 17, 16], [10, 4, 0], [148, 97, 62]],
    ]
    now = ClipMaker(SETTINGS, 0).clip('train', 5).frames[::31, 8::16, 24].astype(int)
    assert np.abs(now - then).max() <= 1


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match='seed -1 must not be negative'):
        ClipMaker(SETTINGS, -1)
    with pytest.raises(RuntimeError, match='no colour differs enough: lower contrast'):
        ClipMaker(replace(SETTINGS, contrast=1.5), 0).clip('train', 0)


def test_sides_are_even_and_half():
    assert [clip_settings(SceneSettings(size=s)).size for s in (64, 66, 67, 128)] == [
        32,
        32,
        32,
        64,
    ]
