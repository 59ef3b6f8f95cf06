import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from normplug.data.clip import ClipMaker, clip_settings
from normplug.data.scene import SceneSettings

av = pytest.importorskip('av')
COUNTS = {'train': 32, 'val': 16}  # of 50 and 10 pictures: half, and all, rounded up to 8


def lines(path):
    return [line.split(' ') for line in path.read_text().splitlines()]


def scans_of(names):
    return {int(re.fullmatch(r'\w+/\d{5}_scan(\d{4})(\.mp4)?', name)[1]) for name in names}


@pytest.fixture(scope='module')
def maker():
    return ClipMaker(clip_settings(SceneSettings(size=96)), 0)  # as in conftest.py


@pytest.mark.parametrize('split', COUNTS)
def test_the_list_has_each_video_once_and_its_class(digits, maker, split):
    root = digits / 'kinetics'
    listed = lines(root / f'kinetics400_{split}_list_videos.txt')
    videos = root / f'videos_{split}'
    assert len(listed) == COUNTS[split]
    assert {name for name, _ in listed} == {
        path.relative_to(videos).as_posix() for path in videos.rglob('*.*')
    }
    classes = (root / 'label_map.txt').read_text().splitlines()
    assert classes == list(maker.settings.classes)
    assert all(classes[int(label)] == name.partition('/')[0] for name, label in listed)
    assert set(Counter(label for _, label in listed).values()) == {COUNTS[split] // 8}


def test_the_record_says_what_the_clips_show(digits):
    scene = json.loads((digits / 'kinetics/digits.json').read_text())['scene']
    assert (scene['numerals'], scene['frames'], scene['pan']) == ([1, 0], 64, 0.05)


def test_the_splits_share_no_scan(digits):
    train, val = (
        scans_of(
            name for name, _ in lines(digits / f'kinetics/kinetics400_{split}_list_videos.txt')
        )
        for split in COUNTS
    )
    assert len(train) > 8
    assert len(val) > 8
    assert not train & val


def test_videos_decode_to_the_clips(digits, maker):
    for index, (name, _) in enumerate(lines(digits / 'kinetics/kinetics400_val_list_videos.txt')):
        with av.open(str(digits / 'kinetics/videos_val' / name)) as file:
            stream = file.streams.video[0]
            assert (stream.frames, stream.average_rate) == (64, 30)
            frames = [frame.to_ndarray(format='rgb24') for frame in file.decode(stream)]
        made = maker.clip('val', index).frames
        assert np.shape(frames) == made.shape == (64, 48, 48, 3)
        # Colours are kept at half the resolution; grey, nearly as it is.
        grey = np.abs(np.mean(frames, -1) - made.mean(-1))
        assert grey.mean() < 4
        if 'resting' not in name:  # which is nearly the same backwards
            assert grey.mean() < 0.7 * np.abs(np.mean(frames, -1) - made[::-1].mean(-1)).mean()


@pytest.mark.parametrize('split', COUNTS)
def test_rawframes_are_of_the_same_clips(digits, maker, split):
    videos = lines(digits / f'kinetics/kinetics400_{split}_list_videos.txt')
    root = digits / 'kinetics_rawframes'
    listed = lines(root / f'kinetics400_{split}_list_rawframes.txt')
    assert listed == [[name.removesuffix('.mp4'), '64', label] for name, label in videos]
    names = [f'img_{number:05d}.jpg' for number in range(1, 65)]
    for index, (name, _, _) in enumerate(listed):
        folder = root / f'rawframes_{split}' / name
        assert sorted(path.name for path in folder.iterdir()) == names
        if index < 2:
            made = maker.clip(split, index).frames
            for number in (0, 63):
                with Image.open(folder / names[number]) as frame:
                    off = np.abs(np.asarray(frame).astype(float) - made[number]).mean()
                assert off < 8


def test_opencv_and_pyav_decode_alike(digits):
    cv2 = pytest.importorskip('cv2')
    path = next((digits / 'kinetics/videos_train').rglob('*.mp4'))
    reader = cv2.VideoCapture(str(path))
    found = [reader.read()[1] for _ in range(64)]
    assert not reader.read()[0]
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format='bgr24') for frame in file.decode(video=0)]
    assert np.abs(np.array(found, float) - frames).max() <= 2


def test_mmaction_reads_videos_and_rawframes(digits):
    datasets = pytest.importorskip('mmaction.datasets')
    sample = {'type': 'mmaction.SampleFrames', 'clip_len': 32, 'frame_interval': 2}
    videos = datasets.VideoDataset(
        data_root=str(digits / 'kinetics'),
        ann_file='kinetics400_train_list_videos.txt',
        data_prefix={'video': 'videos_train'},
        pipeline=[{'type': 'mmaction.PyAVInit'}, sample, {'type': 'mmaction.PyAVDecode'}],
    )
    frames = datasets.RawframeDataset(
        data_root=str(digits / 'kinetics_rawframes'),
        ann_file='kinetics400_train_list_rawframes.txt',
        data_prefix={'img': 'rawframes_train'},
        pipeline=[sample, {'type': 'mmaction.RawFrameDecode'}],
    )
    assert len(videos) == len(frames) == COUNTS['train']
    for index in (0, 9):
        clips = []
        for data in (videos, frames):
            np.random.seed(0)  # of SampleFrames
            clips.append(data[index])
        assert {clip['label'] for clip in clips} == {index % 8}
        one, other = (np.array(clip['imgs'], float) for clip in clips)
        assert one.shape == other.shape == (32, 48, 48, 3)
        assert np.abs(one.mean(-1) - other.mean(-1)).mean() < 4
