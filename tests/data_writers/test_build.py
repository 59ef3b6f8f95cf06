"""Building the folders, and the command line of tools/make_digits.py."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from normplug.data.build import FORMATS, DigitsError, DigitsSettings, build_digits
from normplug.data.clip import ClipMaker
from normplug.data.light import Light
from normplug.data.scene import SceneMaker, SceneSettings

SMALL = DigitsSettings(train=4, val=2, scene=SceneSettings(size=64))
OLD = replace(SMALL, scene=replace(SMALL.scene, light=None))
CLIPS = {'kinetics': 1 + 3 + 16, 'kinetics_rawframes': 1 + 3 + 16 * 64}
# The two domains: in one light whatever is asked for.
ONE_LIGHT = ('cityscapes_day', 'cityscapes_night')
TOOL = Path(__file__).parents[2] / 'tools' / 'make_digits.py'


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.fixture
def make_digits(monkeypatch, tmp_path):
    """Run the tool's main with these arguments; gives its exit code."""
    spec = importlib.util.spec_from_file_location('make_digits', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['make_digits.py', *map(str, args)])
        try:
            tool.main()
        except SystemExit as stop:
            return stop.code
        return 0

    return run


def without_videos(files):
    """Their bytes are those of an encoder, their frames those of the rawframes."""
    return {path: data for path, data in files.items() if path.suffix != '.mp4'}


def test_same_seed_same_bytes_whatever_the_order_and_selection(tmp_path):
    names = list(FORMATS)
    build_digits(tmp_path / 'a', names, SMALL)
    build_digits(tmp_path / 'b', names[::-1], SMALL)
    first = contents(tmp_path / 'a')
    assert len(first) == 2 * 4 + 1 + 20 + 1 + 4 * (12 + 1) + sum(CLIPS.values())
    assert without_videos(first) == without_videos(contents(tmp_path / 'b'))
    for name in names:
        build_digits(tmp_path / 'c' / name, [name], SMALL)
        alone, first = contents(tmp_path / 'c' / name / name), contents(tmp_path / 'a' / name)
        assert without_videos(alone) == without_videos(first)
        assert alone.keys() == first.keys()


def test_another_seed_gives_other_bytes(tmp_path):
    for seed in (0, 1):
        build_digits(tmp_path / str(seed), ['coco'], replace(SMALL, seed=seed))
    image = 'coco/train/000000000001.jpg'
    assert (tmp_path / '0' / image).read_bytes() != (tmp_path / '1' / image).read_bytes()


def test_more_train_images_leave_the_others_as_they_are(tmp_path):
    for train in (2, 3):
        build_digits(tmp_path / str(train), ['coco'], replace(SMALL, train=train))
    for path in ('train/000000000002.jpg', 'annotations/instances_val.json'):
        two, three = (tmp_path / str(k) / 'coco' / path for k in (2, 3))
        assert two.read_bytes() == three.read_bytes()


def test_record_says_what_was_built(tmp_path):
    build_digits(tmp_path, ['classification'], SMALL)
    record = json.loads((tmp_path / 'classification/digits.json').read_text())
    assert record['format'] == 'classification'
    assert (record['seed'], record['train'], record['val']) == (0, 4, 2)
    assert (record['scene']['size'], record['scene']['digits']) == (32, [1, 1])


@pytest.mark.parametrize('name', [name for name in FORMATS if name not in ONE_LIGHT])
def test_light_changes_the_pictures_and_nothing_else(tmp_path, name):
    for folder, settings in (('new', SMALL), ('old', OLD)):
        build_digits(tmp_path / folder, [name], settings)
    new, old = contents(tmp_path / 'new'), contents(tmp_path / 'old')
    assert new.keys() == old.keys()
    pictures = {path for path in new if re.search(r'images|leftImg8bit|scan|\.jpg', str(path))}
    assert len(pictures) == {'classification': 20, **{k: n - 4 for k, n in CLIPS.items()}}.get(
        name, 6
    )
    assert {path for path in new if new[path] != old[path]} == {
        *pictures,
        Path(name, 'digits.json'),
    }


@pytest.mark.parametrize('name', ONE_LIGHT)
def test_domains_have_one_light_whatever_is_asked_for(tmp_path, name):
    for folder, settings in (('new', SMALL), ('old', OLD)):
        build_digits(tmp_path / folder, [name], settings)
    assert contents(tmp_path / 'new') == contents(tmp_path / 'old')
    assert (
        json.loads((tmp_path / 'new' / name / 'digits.json').read_text())['scene']['light'] is None
    )


def test_the_day_is_cityscapes_without_light(tmp_path):
    build_digits(tmp_path, ['cityscapes_day'], SMALL)
    build_digits(tmp_path, ['cityscapes'], OLD)
    day, old = contents(tmp_path / 'cityscapes_day'), contents(tmp_path / 'cityscapes')
    records = [json.loads(files.pop(Path('digits.json'))) for files in (day, old)]
    assert day == old
    assert [record.pop('format') for record in records] == ['cityscapes_day', 'cityscapes']
    assert records[0] == records[1]


def test_domains_lie_beside_formats_in_any_light(tmp_path, make_digits, capsys):
    args = ['--out', 'out', '--size', 64, '--train', 4, '--val', 2, '--formats']
    assert make_digits(*args, 'cityscapes_day', 'ade') == 0
    assert make_digits(*args, 'cityscapes_night') == 0
    assert make_digits(*args, *ONE_LIGHT, '--no-light') == 0
    # They do not stand between the others, in whatever order they are named.
    assert make_digits(*args, 'cityscapes_day', 'coco') == 0
    before = contents(tmp_path)
    capsys.readouterr()
    assert make_digits(*args, 'cityscapes_day', 'cityscapes', '--no-light') == 2
    assert 'with another light: replace it too' in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_night_with_light_of_earlier_versions_is_refused(tmp_path, make_digits, capsys):
    args = ['--out', 'out', '--size', 64, '--train', 4, '--val', 2, '--formats']
    assert make_digits(*args, 'cityscapes_night', 'ade') == 0
    path, lit = (tmp_path / 'out' / name / 'digits.json' for name in ('cityscapes_night', 'ade'))
    record = json.loads(path.read_text())
    record['scene']['light'] = json.loads(lit.read_text())['scene']['light']
    path.write_text(json.dumps(record))
    before = contents(tmp_path)
    for more in ([], ['--no-light']):
        assert make_digits(*args, 'cityscapes_night', *more) == 2
        error = capsys.readouterr().err
        assert 'with other settings (light differ): use --force of make_digits' in error
    assert contents(tmp_path) == before
    assert make_digits(*args, 'cityscapes_night', '--force') == 0
    assert json.loads(path.read_text())['scene']['light'] is None


def without_a_word_about_light(folder):
    """As versions before the light wrote their description."""
    record = json.loads((folder / 'digits.json').read_text())
    assert record['scene'].pop('light') is None
    (folder / 'digits.json').write_text(json.dumps(record))


def test_old_scenes_are_told_from_new_ones(tmp_path, make_digits, capsys):
    args = ['--out', 'out', '--size', 64, '--train', 4, '--val', 2, '--formats']
    assert make_digits(*args, 'coco', '--no-light') == 0
    without_a_word_about_light(tmp_path / 'out/coco')
    capsys.readouterr()
    assert make_digits(*args, 'coco', '--no-light') == 0
    assert 'already there' in capsys.readouterr().out
    before = contents(tmp_path)

    assert make_digits(*args, 'coco') == 2
    assert 'with other settings (light differ): use --force of' in capsys.readouterr().err
    # Nor beside it, where a network would start from one and go on with the other.
    assert make_digits(*args, 'ade') == 2
    assert f'{Path("out")} holds coco with another light' in capsys.readouterr().err
    assert make_digits(*args, 'ade', '--force') == 2
    assert contents(tmp_path) == before

    assert make_digits(*args, 'ade', 'coco', '--force') == 0
    record = json.loads((tmp_path / 'out/coco/digits.json').read_text())
    assert record['scene']['light']['gamma'] == list(Light().gamma)
    assert make_digits(*args, 'classification', '--no-light') == 2


def test_compression_is_recorded_where_there_is_some(tmp_path, make_digits):
    """Descriptions of light without it are what they were, and folders with them still serve."""
    args = ['--size', 64, '--train', 4, '--val', 2, '--formats', 'classification', '--out']
    assert make_digits(*args, 'plain') == 0
    assert make_digits(*args, 'packed', '--jpeg', 30, 90) == 0
    plain, packed = (contents(tmp_path / name / 'classification') for name in ('plain', 'packed'))
    light, with_jpeg = (
        json.loads(files.pop(Path('digits.json')))['scene']['light'] for files in (plain, packed)
    )
    assert 'jpeg' not in light
    assert with_jpeg == {**light, 'jpeg': [30, 90]}
    assert plain.keys() == packed.keys()
    assert all(plain[path] != packed[path] for path in plain)
    assert make_digits(*args, 'plain', '--jpeg', 30, 90) == 2


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError('disk full')])
@pytest.mark.parametrize('name', list(FORMATS))
def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch, name, error):
    files = {'coco': 2, 'classification': 2, 'kinetics': 2, 'kinetics_rawframes': 128}.get(name, 4)
    kind, method = (ClipMaker, 'clip') if name in CLIPS else (SceneMaker, 'scene')
    make, made = getattr(kind, method), []

    def interrupted(self, split, index, **kwargs):
        made.append(index)
        if len(made) == 3:
            assert len(contents(tmp_path)) == files
            raise error
        return make(self, split, index, **kwargs)

    monkeypatch.setattr(kind, method, interrupted)
    with pytest.raises((KeyboardInterrupt, DigitsError)):
        build_digits(tmp_path, [name], SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_leaves_the_old(tmp_path, monkeypatch):
    build_digits(tmp_path, ['coco'], SMALL)
    before = contents(tmp_path)

    def scene(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(SceneMaker, 'scene', scene)
    with pytest.raises(KeyboardInterrupt):
        build_digits(tmp_path, ['coco'], replace(SMALL, seed=1), force=True)
    assert contents(tmp_path) == before


def test_tool_default_arguments_are_the_documented_ones(make_digits, capsys):
    assert make_digits('--help') == 0
    text = ' '.join(capsys.readouterr().out.split())
    for default in ('work_dirs/data/digits', 'coco classification', '128', '1600', '200'):
        assert f'(default: {default})' in text


def test_tool_builds_then_finds_it_there(make_digits, tmp_path, capsys):
    args = ['--out', 'new/out', '--size', 64, '--train', 4, '--val', 2]
    assert make_digits(*args) == 0
    assert 'coco: written in' in capsys.readouterr().out
    first = contents(tmp_path / 'new/out')
    assert {path.parts[0] for path in first} == {'coco', 'classification'}
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / 'new').rglob('*')}

    assert make_digits(*args, '--formats', 'coco') == 0
    assert capsys.readouterr().out == f'coco: already there, {Path("new/out/coco")}\n'
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / 'new').rglob('*')}


def test_tool_replaces_other_settings_only_by_force(make_digits, tmp_path, capsys):
    args = ['--out', 'out', '--formats', 'coco', '--val', 2]
    assert make_digits(*args, '--size', 64, '--train', 4) == 0
    before = contents(tmp_path)

    # ade is free, but nothing is written of it either.
    other = [*args, '--size', 65, '--train', 3]
    assert make_digits(*other, '--formats', 'ade', 'coco') == 2
    message = (
        f'{Path("out/coco")} was written with other settings (size, train differ): use --force'
    )
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before

    assert make_digits(*other, '--force') == 0
    assert len(list((tmp_path / 'out/coco/train').iterdir())) == 3
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['coco']


@pytest.mark.parametrize('record', [None, 'not json', '[]', '{"seed": 0}'])
def test_tool_never_replaces_what_it_did_not_write(make_digits, tmp_path, capsys, record):
    (tmp_path / 'out/coco').mkdir(parents=True)
    (tmp_path / 'out/coco/mine.txt').write_text('mine')
    if record:
        (tmp_path / 'out/coco/digits.json').write_text(record)
    before = contents(tmp_path)
    assert make_digits('--out', 'out', '--force') == 2
    assert 'was not written by make_digits' in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_videos_without_pyav_say_what_to_install(make_digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'av', None)
    args = ['--size', 64, '--train', 4, '--val', 2, '--formats', 'kinetics']
    assert make_digits('--out', 'out', *args) == 2
    assert 'videos need PyAV' in capsys.readouterr().err
    assert list((tmp_path / 'out').iterdir()) == []
    assert make_digits('--out', 'out', *args[:-1], 'kinetics_rawframes') == 0


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--size', 63], '--size 63: must be from 64 to 1024 pixels'),
        (['--size', 1025], '--size 1025: must be from 64 to 1024 pixels'),
        (['--train', -1], '--train -1: must be 1 or more'),
        (['--val', 0], '--val 0: must be 1 or more'),
        (['--seed', -3], '--seed -3: must be 0 or more'),
        (['--jpeg', 90, 30], '--jpeg 90 30: must be qualities from 1 to 100, the lower one first'),
        (['--jpeg', 0, 30], '--jpeg 0 30: must be qualities'),
        (['--jpeg', 30, 101], '--jpeg 30 101: must be qualities'),
        (['--jpeg', 30, 90, '--no-light'], '--jpeg is of the light: leave out --no-light'),
        (['--train', 'many'], "argument --train: invalid int value: 'many'"),
        (['--formats', 'coco', 'voc'], '--formats voc: choose one or more of coco, classification'),
        (['--formats'], 'argument --formats: expected at least one argument'),
        (['--out', 'file/out'], '--out file/out: cannot be written'),
        (['--out', 'file'], '--out file: cannot be written'),
    ],
)
def test_tool_refuses_bad_input(make_digits, tmp_path, capsys, args, message):
    (tmp_path / 'file').write_text('')
    assert make_digits(*args) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['file']
