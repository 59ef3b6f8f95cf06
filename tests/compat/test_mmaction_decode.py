"""mmaction2's PyAVDecode: the same images as its own code gives."""

import numpy as np
import pytest

av = pytest.importorskip('av')
loading = pytest.importorskip('mmaction.datasets.transforms.loading')


@pytest.fixture
def video(tmp_path):
    """24 frames of noise at 40x32."""
    path = tmp_path / 'noise.mp4'
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('mpeg4', 30)
        stream.width, stream.height = 40, 32
        for i in range(24):
            noise = np.random.default_rng(i).integers(0, 256, (32, 40, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(noise)))
        file.mux(stream.encode())
    return path


def decoded(transform, path, indices):
    with av.open(str(path)) as container:
        return transform(dict(video_reader=container, frame_inds=np.array(indices)))


# One clip, a column, the last frame, a frame again, and more frames than there are.
@pytest.mark.parametrize('indices', [[3, 5, 7], [[0], [11]], [23], [4, 4, 2], [20, 24, 47]])
@pytest.mark.parametrize('options', [{}, {'multi_thread': True}, {'mode': 'efficient'}], ids=str)
def test_the_same_images(video, indices, options):
    step = loading.PyAVDecode(**options)
    indices = np.ravel(indices) if 'mode' in options else indices  # which takes no clips
    got = decoded(step.transform, video, indices)
    want = decoded(lambda results: type(step).transform.__wrapped__(step, results), video, indices)
    assert got.keys() == want.keys()
    assert len(got['imgs']) == len(want['imgs']) == np.size(indices)
    for mine, theirs in zip(got['imgs'], want['imgs'], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(got['frame_inds'], want['frame_inds'])
    assert got['img_shape'] == want['img_shape'] == (32, 40)
    assert got['original_shape'] == want['original_shape']


def test_frames_that_no_clip_has_are_not_converted(video, monkeypatch):
    seen = []
    from normplug.compat import mmaction_decode

    image = mmaction_decode._image
    monkeypatch.setattr(mmaction_decode, '_image', lambda frame: seen.append(0) or image(frame))
    decoded(loading.PyAVDecode().transform, video, [10, 2, 10])
    assert len(seen) == 2
