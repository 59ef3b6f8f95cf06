"""The light of each picture: its own, decided by the seed, and none in the old scenes."""

import io
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from normplug.data.light import Light
from normplug.data.scene import SceneMaker, SceneSettings

NONE = Light(**{field.name: (0.0, 0.0) for field in fields(Light)} | {'jpeg': None})
DARK = SceneSettings(size=64, light=None)
LIT = replace(DARK, light=Light())


def image(settings, index=3, seed=0):
    return SceneMaker(settings, seed).scene('train', index).image


def shone(**ranges):
    """A grey ramp in a light that has these and nothing else."""
    ramp = np.repeat(np.linspace(0.2, 0.6, 64, dtype=np.float32)[:, None], 64, 1)
    ramp = np.stack([ramp] * 3, -1)
    return ramp, replace(NONE, **ranges).shine(np.random.default_rng(0), ramp)


def test_a_scene_is_the_same_in_any_light():
    dark, lit = (SceneMaker(settings, 0).scene('val', 5) for settings in (DARK, LIT))
    for name in ('labels', 'scans', 'masks', 'unsure'):
        assert np.array_equal(getattr(dark, name), getattr(lit, name))
    assert len(lit.labels) > 0
    assert not np.array_equal(dark.image, lit.image)
    same = SceneMaker(replace(DARK, light=NONE), 0).scene('val', 5)
    assert np.array_equal(same.image, dark.image)


def test_old_scenes_are_what_they_were():
    # Read off the version before the light; other builds of Pillow may round otherwise.
    then = [
        [[0, 30, 19], [1, 21, 22], [1, 17, 17], [211, 214, 247]],
        [[0, 60, 77], [0, 48, 51], [2, 38, 42], [255, 255, 211]],
        [[144, 175, 175], [0, 61, 76], [210, 162, 98], [234, 168, 96]],
        [[0, 74, 87], [247, 255, 255], [220, 160, 90], [0, 0, 4]],
    ]
    now = image(DARK)[8::16, 8::16].astype(int)
    assert np.abs(now - then).max() <= 1


def test_each_picture_has_its_own_light_decided_by_the_seed():
    lit, dark = ([image(s, k).astype(float) for k in range(24)] for s in (LIT, DARK))
    means, channels, contrasts = [], [], []
    for one, other in zip(lit, dark, strict=True):
        change = one.mean((0, 1)) - other.mean((0, 1))
        means.append(change.mean())
        channels.append(np.ptp(change))
        contrasts.append(one.std() / other.std())
    assert np.std(means) > 20  # of 255
    assert np.median(channels) > 10
    assert max(contrasts) > 2 * min(contrasts)
    assert np.array_equal(lit[3], image(LIT, 3))
    flat = np.full((8, 8, 3), 0.5, np.float32)
    one, other = (Light().shine(np.random.default_rng(seed), flat) for seed in (1, 2))
    assert np.abs(one - other).mean() > 0.05


@pytest.mark.parametrize(
    ('ranges', 'formula'),
    [
        ({'gamma': (0.5, 0.5)}, lambda x: x ** np.exp(0.5)),
        ({'gain': (-0.5, -0.5)}, lambda x: x * np.exp(-0.5)),
        ({'contrast': (-1.0, -1.0)}, lambda x: (x - 0.5) * np.exp(-1.0) + 0.5),
        ({'offset': (0.3, 0.3)}, lambda x: x + 0.3),
        ({'gain': (2.0, 2.0)}, lambda x: np.ones_like(x)),
    ],
)
def test_each_range_does_what_it_says(ranges, formula):
    ramp, lit = shone(**ranges)
    assert lit == pytest.approx(formula(ramp), abs=1e-5)


def test_blur_and_noise():
    ramp, noisy = shone(noise=(0.05, 0.05))
    assert np.std(noisy - ramp) == pytest.approx(0.05, rel=0.05)
    edge = np.zeros((64, 64, 3), np.float32)
    edge[:, 32:] = 1
    blurred = replace(NONE, blur=(0.05, 0.05)).shine(np.random.default_rng(0), edge)
    # The integral of a Gaussian of 3.2 pixels up to 3.5 pixels before the edge.
    assert blurred[32, 28, 0] == pytest.approx(norm.cdf(-3.5 / 3.2), abs=0.01)
    assert np.ptp(blurred[:, 28]) < 1e-6


def test_a_jpeg_of_a_drawn_quality():
    lit = SceneMaker(LIT, 0).scene('val', 5).image
    found = {}
    for quality in (5, 95):
        settings = replace(LIT, light=Light(jpeg=(quality, quality)))
        found[quality] = SceneMaker(settings, 0).scene('val', 5).image
        buffer = io.BytesIO()
        Image.fromarray(lit).save(buffer, 'jpeg', quality=quality)
        assert np.array_equal(found[quality], np.asarray(Image.open(buffer)))
    one, other = (np.abs(found[q].astype(float) - lit).mean() for q in (5, 95))
    assert one > 2 * other > 0
    drawn = replace(NONE, jpeg=(5, 50))
    still = np.stack([np.random.default_rng(1).random((32, 32, 3), np.float32)] * 2)
    clips = [drawn.shine(np.random.default_rng(seed), still) for seed in range(4)]
    assert all(np.array_equal(*frames) for frames in clips)
    assert len({clip.tobytes() for clip in clips}) > 1


def test_frames_of_a_clip_have_one_light_and_each_its_own_noise():
    clip = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    still = replace(Light(), noise=(0.0, 0.0))
    lit = still.shine(np.random.default_rng(0), clip)
    for frame, alone in zip(lit, clip, strict=True):
        assert np.abs(frame - still.shine(np.random.default_rng(0), alone)).max() < 1e-6
    grey = np.full_like(clip, 0.5)
    noisy = replace(NONE, noise=(0.05, 0.05)).shine(np.random.default_rng(0), grey)
    assert np.std(noisy[0] - noisy[1]) == pytest.approx(0.05 * 2**0.5, rel=0.1)
