"""Wrong folders and lists of images: refused before anything is written, or told of."""

import shutil

import pytest
from bad_input_projects import Row, config

KEY = 'train_dataloader.dataset'
LIST = 'cat/0.png 0\ndog/1.png 1\ncat/2.png 0\n'


def another_folder(name, phase='train', image='0.png'):
    def make(p):
        folder = p.folder / 'data' / phase / name
        folder.mkdir()
        if image:
            shutil.copy(p.images / '0.png', folder / image)

    return make


def a_list(text):
    def make(p):
        (p.folder / 'data/train.txt').write_text(text)
        p.write_config("train_dataloader['dataset'].update(ann_file='train.txt')\n")

    return make


def other_class_in_val(p):
    (p.folder / 'data/val/cat').rename(p.folder / 'data/val/bird')


IMAGE = 'data/train/dog/1.png'
REFUSED = [
    Row('image truncated', lambda p: p.truncate(p.folder / IMAGE),
        (f'{KEY}: images that cannot be read: 1 ({IMAGE} is damaged', 'download them again')),
    Row('image empty', lambda p: (p.folder / IMAGE).write_bytes(b''), (f'{IMAGE} is empty',)),
    Row('a third class', another_folder('zebra'),
        (f'model.head.num_classes is 2, but {KEY} has 3 classes (cat, dog, zebra): set it to 3',)),
    Row('a hidden folder', another_folder('.ipynb_checkpoints'),
        (f'{KEY} data/train: hidden folders, which count as classes: 1 (data/train/.ipynb',
         'remove these')),
    Row('folders of val that mean other labels', other_class_in_val,
        ('val_dataloader.dataset: labels that mean another class: 1 (label 0 is bird, in '
         f'{KEY} cat)', 'give all datasets the same ones')),
    Row('more classes than folders',
        config("train_dataloader['dataset']['metainfo'] = dict(classes=('a', 'b', 'c'))"),
        (f'{KEY} data/train: another number of folders than classes: 1 (2, {KEY}.metainfo',)),
    Row('no images', lambda p: [path.unlink() for path in p.folder.glob('data/train/*/*')],
        ('folders without any image', 'it holds no file')),
    Row('a list with a label too high', a_list(LIST.replace('1.png 1', '1.png 2')),
        (f'model.head.num_classes is 2, but {KEY} has 3 classes (0, 1, 2)',)),
    Row('a list without a label', a_list(LIST + 'dog/3.png\n'),
        (f'{KEY}.ann_file data/train.txt: lines without file or label: 1 (line 4)',)),
    Row('a list with an empty line', a_list(LIST + '\n'), ('file or label: 1 (line 4)',)),
    Row('a list with a missing image', a_list(LIST + 'dog/9.png 1\n'),
        ('images that are missing: 1 (data/train/dog/9.png)', f'{KEY}.data_prefix')),
    Row('an empty list', a_list(''), ('train.txt: empty files',)),
]  # fmt: skip


@pytest.mark.parametrize('row', REFUSED, ids=lambda row: row.name)
def test_refused(classification, tool, refused, row):
    row.make(classification)
    refused(tool('train'), ['config.py'], row.messages)


def a_link(p):
    (p.folder / 'data/train/dog').rename(p.folder / 'data/elsewhere')
    (p.folder / 'data/train/dog').symlink_to(p.folder / 'data/elsewhere')


BORNE = [
    Row('nothing wrong', lambda p: None, ()),
    Row('a list', a_list(LIST), ()),
    Row('images without labels',
        config("train_dataloader['dataset']['with_label'] = False"), ()),
    Row('a file beside the folders', lambda p: (p.folder / 'data/train/readme.txt').touch(), ()),
    Row('a link to a folder', a_link, ()),
    Row('more outputs than classes', config("model['head']['num_classes'] = 9"), ()),
    Row('a suffix that mmpretrain does not take',
        lambda p: (p.folder / IMAGE).rename(p.folder / 'data/train/dog/1.webp'),
        ('images that end otherwise: 1 (data/train/dog/1.webp)', f'{KEY}.extensions')),
    Row('an empty class folder', another_folder('zebra', image=''),
        ('class folders without any image: 1 (zebra)',)),
    Row('classes in another order',
        config("train_dataloader['dataset']['metainfo'] = dict(classes=('dog', 'cat'))"),
        (f'{KEY}.metainfo.classes: classes in another order than the folders',)),
]  # fmt: skip


@pytest.mark.parametrize('row', BORNE, ids=lambda row: row.name)
def test_borne(classification, told, row):
    told(classification, row)
