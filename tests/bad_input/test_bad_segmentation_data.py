"""Wrong maps of labels: refused before anything is written, or read as mmseg reads them."""

import numpy as np
import pytest
from bad_input_projects import Row, config
from PIL import Image

KEY = 'train_dataloader.dataset'


def labels(pixels):
    return lambda p: p.save(p.labels / '1.png', pixels)


def palette(p):
    path = p.labels / '1.png'
    picture = Image.open(path)
    picture.putpalette([0, 0, 0, 128, 0, 0])  # the numbers stay
    picture.save(path)


def palette_read_by_cv2(p):
    palette(p)
    p.write_config("labels.update(imdecode_backend='cv2')\n")


def sixteen_bits(p):
    Image.fromarray(np.full((32, 40), 300, np.uint16)).save(p.labels / '1.png')


def no_images(p):
    for path in p.images.iterdir():
        path.unlink()


def split_file(*names):
    def make(p):
        (p.folder / 'data/train.txt').write_text('\n'.join(names))
        p.write_config("dataset.update(ann_file='train.txt')\n")

    return make


LABEL_1 = 'data/labels/1.png'
REFUSED = [
    Row('a label that is no class', labels(np.full((32, 40), 2)),
        (f'{KEY} seg_map_path: maps with labels that are not classes: 1 ({LABEL_1} with 2)',
         'For 2 classes labels are 0 to 1, and 255', f'{KEY}.metainfo.classes and num_classes')),
    Row('a label that is no class once zero is reduced',
        lambda p: (labels(np.full((32, 40), 3))(p),
                   config('dataset.update(reduce_zero_label=True)')(p)),
        (f'{LABEL_1} with 3', 'For 2 classes labels are 1 to 2')),
    Row('labels in colours', labels(np.zeros((32, 40, 3))),
        (f'maps of labels with colours: 1 ({LABEL_1} of shape (32, 40, 3))',
         'convert the colours')),
    Row('a palette PNG that would be read as colours', palette_read_by_cv2,
        (f'{LABEL_1} of shape (32, 40, 3)', "imdecode_backend='pillow' of LoadAnnotations")),
    Row('labels of 16 bits', sixteen_bits,
        (f'maps with labels above 255: 1 ({LABEL_1} with 300)', 'Write labels up to 255')),
    Row('labels of another size', labels(np.zeros((16, 20))),
        (f'another size than the image: 1 ({LABEL_1} 20x16, image 40x32)', 'the same size')),
    Row('a map missing', lambda p: (p.labels / '1.png').unlink(),
        (f'{KEY} data/labels: maps of labels that are missing: 1 ({LABEL_1})',
         f"ending in '.png' ({KEY}.seg_map_suffix): it holds 3 .png")),
    Row('a map truncated', lambda p: p.truncate(p.labels / '1.png'),
        (f'maps of labels that cannot be read: 1 ({LABEL_1} is damaged', 'copy them again')),
    Row('a map empty', lambda p: (p.labels / '1.png').write_bytes(b''),
        (f'{LABEL_1} is empty', 'copy them again')),
    Row('an image truncated', lambda p: p.truncate(p.images / '1.png'),
        (f'{KEY}: images that cannot be read: 1 (data/images/1.png is damaged', 'again')),
    Row('an empty folder of images', no_images,
        (f"{KEY} data/images: folders without any image that ends in '.png'", 'it holds no file')),
    Row('the suffix of other images', config("dataset['img_suffix'] = '.jpg'"),
        ("ends in '.jpg' (img_suffix)", f'Set {KEY}.img_suffix', 'it holds 4 .png')),
    Row('the suffix of other maps', config("dataset['seg_map_suffix'] = '_labelTrainIds.png'"),
        ('maps of labels that are missing: 4', "'_labelTrainIds.png'", 'it holds 4 .png')),
    Row('folder of maps missing',
        config("dataset['data_prefix'] = dict(img_path='images', seg_map_path='masks')"),
        (f'{KEY}.data_prefix.seg_map_path: data/masks', 'Put the data there')),
    Row('a split that names an image that is not there', split_file('0', '7'),
        (f'{KEY} data/images: images that are missing: 1 (data/images/7.png)', f'{KEY}.ann_file')),
    Row('an empty split', split_file(), ('folders without any image',)),
    Row('fewer outputs than classes', config("dataset['metainfo'] = dict(classes=('a', 'b', 'c'))"),
        ('model.decode_head.num_classes is 2', f'{KEY}.metainfo has 3 classes', 'set it to 3')),
    Row('reduce_zero_label in the pipeline alone', config('labels.update(reduce_zero_label=True)'),
        (f'{KEY}.reduce_zero_label: values other than that of the pipeline: 1 (False, that of '
         'LoadAnnotations is True)', f'set {KEY}.reduce_zero_label=True, or leave it out')),
    Row('reduce_zero_label in the dataset, but not in the pipeline',
        config('dataset.update(reduce_zero_label=True)\nlabels.update(reduce_zero_label=False)'),
        (f'set {KEY}.reduce_zero_label=False, or leave it out',)),
    Row('labels from 1', labels(np.arange(40) % 2 + np.ones((32, 1))),
        ('with 2)', f'Where 1 is the first class, set {KEY}.reduce_zero_label=True')),
    Row('255, where the loss ignores another label',
        lambda p: (labels(np.full((32, 40), 255))(p),
                   config("model['decode_head']['ignore_index'] = 2")(p)),
        (f'{LABEL_1} with 255', 'labels are 0 to 1, and 2 to ignore a pixel')),
    Row('a palette of another length',
        config("dataset['metainfo'] = dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0]])"),
        (f'{KEY} cannot be built: palette does not match classes',)),
]  # fmt: skip


@pytest.mark.parametrize('row', REFUSED, ids=lambda row: row.name)
def test_refused(segmentation, tool, refused, row):
    row.make(segmentation)
    refused(tool('train'), ['config.py'], row.messages)


BORNE = [
    Row('nothing wrong', lambda p: None, ()),
    Row('pixels to ignore', labels(np.full((32, 40), 255)), ()),
    Row('pixels to ignore by another number',
        lambda p: (labels(np.full((32, 40), 2))(p),
                   config("model['decode_head']['ignore_index'] = 2")(p)), ()),
    Row('a palette PNG, read as numbers', palette, ()),
    Row('a grey image', lambda p: p.save(p.images / '1.png', np.zeros((32, 40))), ()),
    Row('a map without image', lambda p: p.save(p.labels / '9.png', np.zeros((4, 4))), ()),
    Row('a split', split_file('0', '2'), ()),
    Row('zero is reduced', lambda p: (labels(np.arange(1, 41) % 3 + np.zeros((32, 1)))(p),
                                      config('dataset.update(reduce_zero_label=True)')(p)), ()),
    Row('zero is reduced, as the pipeline says too',
        lambda p: (labels(np.arange(1, 41) % 3 + np.zeros((32, 1)))(p),
                   config('dataset.update(reduce_zero_label=True)\n'
                          'labels.update(reduce_zero_label=True)')(p)), ()),
    Row('one output for two classes',
        config("model['decode_head'].update(out_channels=1, threshold=0.5)"), ()),
    Row('one output for one class and the rest',
        config("dataset['metainfo'] = dict(classes=('cat',))\n"
               "model['decode_head'].update(num_classes=1, out_channels=1)"), ()),
    Row('an image with another suffix and without labels',
        lambda p: p.save(p.images / '9.jpg', np.zeros((4, 4, 3))), ()),
    Row('images and labels in one folder',
        lambda p: ([path.rename(p.images / f'{path.stem}_label.png')
                    for path in p.labels.iterdir()],
                   [path.rename(path.with_suffix('.jpg'))
                    for path in p.images.glob('?.png')],
                   config("dataset.update(img_suffix='.jpg', seg_map_suffix='_label.png',\n"
                          "    data_prefix=dict(img_path='images', seg_map_path='images'))")(p)),
        ()),
    Row('a missing image that indices leave out',
        lambda p: ((p.images / '3.png').unlink(), split_file('0', '1', '2', '3')(p),
                   p.write_config("dataset.update(ann_file='train.txt', indices=3)\n")), ()),
    Row('a test set without maps',
        config("dataset.update(data_prefix=dict(img_path='images'), pipeline=[load])"), ()),
]  # fmt: skip


@pytest.mark.parametrize('row', BORNE, ids=lambda row: row.name)
def test_borne(segmentation, told, row):
    told(segmentation, row)


def masks(p, value=255):
    for path in p.labels.iterdir():
        p.save(path, np.where(np.arange(40) < 9, 0, value)[None].repeat(32, 0))


def other_suffixes(p):
    (p.images / '2.png').rename(p.images / '2.PNG')
    (p.images / '3.png').rename(p.images / '3.jpg')


TOLD = [
    Row('masks of 0 and 255', masks,
        ('maps with one class at most, beside pixels to ignore: 1 (cat and 255)',
         '255 is no class', 'masks of 0 and 255')),
    Row('masks of 1 and 255', lambda p: [p.save(path, np.full((32, 40), 255) - 254 * (
        np.arange(40) < 9)) for path in p.labels.iterdir()], ('(dog and 255)',)),
    Row('0 is a class, and reduced', config('dataset.update(reduce_zero_label=True)'),
        ('(cat and 255)', f'With {KEY}.reduce_zero_label=True 0 is ignored')),
    Row('images of other suffixes', other_suffixes,
        (f'{KEY} data/images: images that end otherwise: 2 (data/images/', "end in '.png'",
         f'{KEY}.img_suffix')),
]  # fmt: skip


@pytest.mark.parametrize('row', TOLD, ids=lambda row: row.name)
def test_told(segmentation, told, row):
    """mmseg trains on less than meant, and says nothing."""
    told(segmentation, row, ('train',))
