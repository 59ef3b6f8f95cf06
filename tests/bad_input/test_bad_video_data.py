"""Wrong lists and clips of mmaction2's datasets: refused before anything is written, or told of."""

import pytest
from bad_input_projects import Row, config, contents
from mmengine.registry import DATASETS

from normplug.launch import UserError, load_config
from normplug.preflight.data import check_all_data, check_data, unreadable_files_explained

KEY = 'train_dataloader.dataset'
LIST = 'cat/0.mp4 0\ndog/1.mp4 1\ncat/2.mp4 0\n'
FRAMES = 'cat/0 10 0\ndog/1 10 1\ncat/2 10 0\n'
PLACE, PLACE_FRAMES = (f'{KEY}.ann_file data/{name}.txt: ' for name in ('train', 'frames'))
VIDEO = 'data/videos/dog/1.mp4'
FRAME = 'data/frames/dog/1/img_00005.jpg'  # the start opens the first, this and the last
FLOW = "train_dataloader['dataset'].update(modality='Flow', filename_tmpl='{}_{:05d}.jpg')\n"
OF_FRAMES = "train_dataloader['dataset'] = frames\n"


def a_list(text, more=''):
    def make(p):
        (p.folder / 'data/train.txt').write_text(text)
        p.write_config(more)

    return make


def frames(change=lambda folder: None, text=FRAMES, more=''):
    def make(p):
        (p.folder / 'data/frames.txt').write_text(text)
        change(p.folder)
        p.write_config(OF_FRAMES + more)

    return make


def flow(folder):
    for path in (folder / 'data/frames').rglob('img_*'):
        for plane in 'xy':
            (path.parent / path.name.replace('img', plane)).write_bytes(path.read_bytes())


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


def sampling(more):
    return config(f"train_dataloader['dataset']['pipeline'][1].update({more})")


def ends_early(p):
    """The header comes first and promises 40 frames; most of them are cut off."""
    av = pytest.importorskip('av')
    path = p.folder / VIDEO
    with av.open(str(path), 'w', options={'movflags': 'faststart'}) as file:
        stream = file.add_stream('mpeg4', 30)
        stream.width = stream.height = 64
        for i in range(40):
            frame = av.VideoFrame(64, 64, 'rgb24')
            frame.planes[0].update(
                bytes((i * k * k) % 256 for k in range(frame.planes[0].buffer_size))
            )
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    p.truncate(path)


MULTI = "train_dataloader['dataset'].update(multi_class=True)\n"
OF_TWO = "train_dataloader['dataset'].update(multi_class=True, num_classes=2)\n"
REFUSED = [
    Row('a missing video', a_list(LIST + 'dog/9.mp4 1\n'),
        (f'{PLACE}videos that are missing: 1 (line 4, data/videos/dog/9.mp4)',
         f'{KEY}.data_prefix')),
    Row('an empty video', lambda p: (p.folder / VIDEO).write_bytes(b''),
        (f'{PLACE}videos that cannot be read: 1 (line 2, {VIDEO} is empty)',
         'download them again')),
    Row('a video that is cut', lambda p: p.truncate(p.folder / VIDEO),
        (f'cannot be read: 1 (line 2, {VIDEO} is no video, or damaged)',)),
    Row('no video', lambda p: (p.folder / VIDEO).write_text('no video'),
        (f'cannot be read: 1 (line 2, {VIDEO} is no video, or damaged)',)),
    Row('a video that ends early', ends_early,
        (f'cannot be read: 1 (line 2, {VIDEO} is damaged (', 'of 40 frames decode)')),
    Row('a clip too short', sampling('clip_len=6'),
        (f'{PLACE}clips of less than the 12 frames that SampleFrames takes: 3 (line 1, '
         'data/videos/cat/0.mp4 has 10', 'set clip_len or frame_interval lower',
         'out_of_bound_opt')),
    Row('a clip too short for a test', sampling('clip_len=6, test_mode=True'),
        ('less than the 11 frames',)),
    Row('a label too high', a_list(LIST.replace('1.mp4 1', '1.mp4 2')),
        (f'{PLACE}labels out of range: 1 (line 2, 2)',
         'model.cls_head.num_classes is 2, so they are from 0 to 1: correct the list')),
    Row('a negative label', a_list(LIST + 'cat/0.mp4 -1\n'), ('out of range: 1 (line 4, -1)',)),
    Row('a second label too high', a_list(LIST + 'cat/0.mp4 0 5\n', OF_TWO),
        ('labels out of range: 1 (line 4, 5)',)),
    Row('a label beyond the head alone',
        a_list(LIST + 'cat/0.mp4 0 2\n', OF_TWO.replace('num_classes=2', 'num_classes=3')),
        ('out of range: 1 (line 4, 2). model.cls_head.num_classes is 2',)),
    Row('many labels of an unknown number', config(MULTI), ('multi_class without num_classes',)),
    Row('a line without a label', a_list(LIST + 'dog/1.mp4\n'),
        (f"{PLACE}lines that are not FILE LABEL: 1 (line 4, 'dog/1.mp4')", "with ' ' (")),
    Row('an empty line', a_list('\n' + LIST), ("not FILE LABEL: 1 (line 1, '')",)),
    Row('a name with a space', a_list(LIST + 'a dog/1.mp4 1\n'), ("(line 4, 'a dog/1.mp4 1')",)),
    Row('a label that is a word', a_list(LIST + 'dog/1.mp4 dog\n'), ("(line 4, 'dog/1.mp4 dog')",)),
    Row('an empty list', a_list(''), (f'{PLACE}empty files: 1',)),
    Row('no list', lambda p: (p.folder / 'data/train.txt').write_bytes(b'\xff\xfe\x00'),
        (f'{PLACE}files that are no text: 1',)),
    Row('another prefix', config("train_dataloader['dataset']['data_prefix'] = dict(img='videos')"),
        (f'{KEY}.data_prefix: keys in place of video: 1 (img',
         f'Set {KEY}.data_prefix = dict(video=')),
    Row('a missing folder', frames(text=FRAMES + 'dog/9 10 1\n'),
        (f'{PLACE_FRAMES}folders of frames that are missing: 1 (line 4, data/frames/dog/9)',)),
    Row('a missing frame', frames(lambda f: (f / FRAME).unlink()),
        (f'{PLACE_FRAMES}frames that are missing: 1 (line 2, {FRAME})', 'Extract them again')),
    Row('more frames in the list than there are', frames(text=FRAMES.replace('1 10 1', '1 12 1')),
        ('missing: 1 (line 2, data/frames/dog/1/img_00011.jpg and 1 more)', 'number of frames')),
    Row('frames beyond an offset', frames(text='cat/0 1 10 0\n',
        more="train_dataloader['dataset']['with_offset'] = True\n"),
        ('frames that are missing: 1 (line 1, data/frames/cat/0/img_00011.jpg)',)),
    Row('frames of other names', frames(
        more="train_dataloader['dataset']['filename_tmpl'] = '{:03}.jpg'\n"),
        ('missing: 3 (line 1, data/frames/cat/0/001.jpg and 9 more', 'filename_tmpl')),
    Row('frames from 0', frames(more="train_dataloader['dataset']['start_index'] = 0\n"),
        ('(line 1, data/frames/cat/0/img_00000.jpg, line 2', 'start_index')),
    Row('a frame that is cut', frames(lambda f: cut(f / FRAME)),
        (f'{PLACE_FRAMES}frames that cannot be read: 1 (line 2, {FRAME} is damaged',
         'take the line')),
    Row('few frames', frames(text=FRAMES + 'cat/0 7 0\n'),
        (f'{PLACE_FRAMES}clips of less than the 8 frames', '1 (line 4, data/frames/cat/0 has 7)')),
    Row('frames without a label', frames(text=FRAMES + 'cat/0 10\n'),
        ("lines that are not FOLDER FRAMES LABEL: 1 (line 4, 'cat/0 10')",)),
    Row('half of the optical flow', frames(
        lambda f: (flow(f), (f / 'data/frames/cat/0/y_00010.jpg').unlink()), more=FLOW),
        ('frames that are missing: 1 (line 1, data/frames/cat/0/y_00010.jpg)',)),
    Row('frames with a label too high', frames(text=FRAMES + 'cat/0 10 2\n'),
        ('labels out of range: 1 (line 4, 2)',)),
]  # fmt: skip


@pytest.mark.parametrize('row', REFUSED, ids=lambda row: row.name)
def test_refused(video, row):
    row.make(video)
    before = contents(video.folder)
    with pytest.raises(UserError) as caught:
        check_data(load_config('config.py'), ('train',))
    for message in row.messages:
        assert message in str(caught.value)
    assert contents(video.folder) == before


BORNE = [
    Row('nothing wrong', lambda p: None, ()),
    Row('frames', frames(), ()),
    Row('frames with an offset', frames(text='cat/0 1 9 0\n',
        more="train_dataloader['dataset']['with_offset'] = True\n"), ()),
    Row('optical flow', frames(flow, more=FLOW), ()),
    Row('several labels', a_list(LIST + 'cat/0.mp4 0 1\n', OF_TWO), ()),
    Row('another delimiter',
        a_list('cat/0.mp4,0\n', "train_dataloader['dataset']['delimiter'] = ','\n"), ()),
    Row('more outputs than classes', config("model['cls_head']['num_classes'] = 400"), ()),
    Row('as long as a test asks for', sampling('clip_len=5, frame_interval=2, test_mode=True'), ()),
    Row('a clip too short, which is meant', sampling("clip_len=6, out_of_bound_opt='loop'"),
        (f'{PLACE}clips of less than the 12 frames', "out_of_bound_opt='loop' says what")),
    Row('clips elsewhere', lambda p: ((p.folder / VIDEO).unlink(), p.write_config(
        "train_dataloader['dataset']['pipeline'][0]['io_backend'] = 'petrel'\n")), ()),
]  # fmt: skip


@pytest.mark.parametrize('row', BORNE, ids=lambda row: row.name)
def test_borne(video, told, row):
    told(video, row, ('train',))


def test_the_start_opens_some_and_the_tool_all(video, monkeypatch):
    video.truncate(video.folder / VIDEO)
    cut(video.folder / FRAME)
    video.write_config("val_dataloader['dataset'] = frames\n")
    cfg = load_config('config.py')
    found = [problem.cases for problem in check_all_data(cfg, ('train', 'val')).errors]
    assert [len(cases) for cases in found] == [1, 1]
    monkeypatch.setattr('normplug.preflight.data._DECODED', 2)
    assert check_data(cfg, ('train', 'val')) == []  # the second of three is not opened


def opener(result):
    def transform(self, sample):
        if isinstance(result, Exception):
            raise result
        return {**sample, 'total_frames': result}

    return transform


@pytest.mark.parametrize(
    ('result', 'message'),
    [
        (
            RuntimeError('no such codec\nat all'),
            'mp4 cannot be opened by OpenCVInit (no such codec)',
        ),
        (
            0,
            'that SampleFrames takes: 3 (line 1, data/videos/cat/0.mp4 has 0',
        ),
    ],
)
def test_what_the_pipeline_cannot_open(video, monkeypatch, result, message):
    monkeypatch.setattr('mmaction.datasets.transforms.OpenCVInit.transform', opener(result))
    sampling("out_of_bound_opt='loop'")(video)
    with pytest.raises(UserError) as caught:
        check_data(load_config('config.py'), ('train',))
    assert message in str(caught.value)


def test_frames_a_second_count_where_the_sampling_asks_for_them(video, monkeypatch):
    def transform(self, sample):
        return {**sample, 'total_frames': 10, 'avg_fps': 60}

    monkeypatch.setattr('mmaction.datasets.transforms.OpenCVInit.transform', transform)
    sampling('target_fps=48')(video)  # 8 frames at 48 are 10 at 60
    assert check_data(load_config('config.py'), ('train',)) == []
    sampling('target_fps=40')(video)
    with pytest.raises(UserError, match='less than the 12 frames'):
        check_data(load_config('config.py'), ('train',))


@pytest.mark.parametrize('name', [VIDEO, FRAME])
def test_a_clip_that_breaks_later_is_named(video, name):
    (frames() if name == FRAME else config(''))(video)
    dataset = load_config('config.py').train_dataloader.dataset
    with DATASETS.switch_scope_and_registry('mmaction') as registry:
        dataset = registry.build(dataset)
    assert dataset[1]['data_samples'].gt_label.tolist() == [1]
    cut(video.folder / name)
    with pytest.raises(UserError, match=f'^{name} is .*go on with --resume'):  # noqa: SIM117
        with unreadable_files_explained():
            [dataset[1] for _ in range(9)]  # some begin with the first frame and leave this out
