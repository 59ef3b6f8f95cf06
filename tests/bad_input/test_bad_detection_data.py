"""Wrong COCO data: refused before anything is written, or borne with a warning, as in the table."""

import json
import warnings

import numpy as np
import pytest
from bad_input_projects import Row, config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from normplug.launch import load_config
from normplug.preflight.data import check_data, check_num_classes

KEY = 'train_dataloader.dataset'
FILE = f'{KEY}.ann_file data/boxes.json'


def without(key):
    def make(p):
        del p.coco[key]
        p.write_coco()

    return make


def annotation(**values):
    return lambda p: p.change_annotation(**values)


def image(**values):
    return lambda p: p.change_image(**values)


def categories(*names, ids=(1, 2)):
    def make(p):
        p.coco['categories'] = [{'id': i, 'name': n} for i, n in zip(ids, names, strict=True)]
        p.write_coco()

    return make


def other_file_for_the_metric(p):
    p.coco['images'] = p.coco['images'][:2]
    (p.folder / 'data/other.json').write_text(json.dumps(p.coco))
    p.write_config("val_evaluator = dict(type='CocoMetric', ann_file='data/other.json')\n")


def same_images_for_the_metric(p):
    (p.folder / 'data/other.json').write_text(json.dumps(p.coco))
    p.write_config("val_evaluator = dict(type='CocoMetric', ann_file='data/other.json')\n")


def jpeg_cut(p):
    path = p.images / '1.jpg'
    Image.open(p.images / '1.png').save(path)
    p.truncate(path)
    p.change_image(file_name='1.jpg')


def masks_in_the_pipeline(p):
    p.change_annotation(segmentation=None)
    p.write_config("train_dataloader['dataset']['pipeline'][1].update(with_mask=True)\n")


REFUSED = [
    Row('annotation file missing',
        lambda p: (p.folder / 'data/boxes.json').unlink(),
        (f'{KEY}.ann_file: data/boxes.json', 'Put the data there')),
    Row('annotation file empty',
        lambda p: p.write_coco(''),
        (f'{FILE}: empty files', 'Write or download it again')),
    Row('annotation file is text',
        lambda p: p.write_coco('cat 1 2 3 4\n'),
        (f'{FILE}: files that are not complete JSON', 'line 1 column 1', 'download it again')),
    Row('annotation file truncated',
        lambda p: p.truncate(p.folder / 'data/boxes.json'),
        (f'{FILE}: files that are not complete JSON', 'download it again')),
    Row('annotation file is binary',
        lambda p: (p.folder / 'data/boxes.json').write_bytes(b'\x89PNG\r\n\x1a\n\xff'),
        (f'{FILE}: files that are not complete JSON', 'download it again')),
    Row('a list of results in its place',
        lambda p: p.write_coco('[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]'),
        (f'{FILE}: keys that the file lacks', 'images, categories', 'choose the right file')),
    Row('no images key', without('images'), (f'{FILE}: keys that the file lacks: 1 (images)',)),
    Row('no annotations key, to train on', without('annotations'),
        (f'{FILE}: keys that the file lacks: 1 (annotations)', 'A COCO file is')),
    Row('no categories key', without('categories'),
        (f'{FILE}: keys that the file lacks: 1 (categories)',)),
    Row('no images',
        lambda p: (p.coco.update(images=[]), p.write_coco()),
        (f'{FILE}: empty lists: 1 (images)', 'Choose a file with images')),
    Row('no annotation of the classes',
        lambda p: (p.coco.update(annotations=[]), p.write_coco()),
        (f'{FILE}: files without any annotation that mmdet can use', 'nothing to train on')),
    Row('all boxes outside their images',
        lambda p: ([a.update(bbox=[100, 100, 5, 5]) for a in p.coco['annotations']],
                   p.write_coco()),
        ('files without any annotation that mmdet can use',)),
    Row('image without file_name', image(file_name=None),
        (f'{FILE}: images without file_name: 1 (number 1)', 'write it again')),
    Row('image of width 0', image(width=0),
        (f'{FILE}: images whose width or height is not a size: 1 (1.png (0, 32))',)),
    Row('image file missing',
        lambda p: (p.images / '1.png').unlink(),
        (f'{KEY}.data_prefix.img data/images: images that are missing: 1 (data/images/1.png)',
         f'set {KEY}.data_prefix.img')),
    Row('image truncated',
        lambda p: p.truncate(p.images / '1.png'),
        (f'{KEY}: images that cannot be read: 1 (data/images/1.png is damaged', 'download them')),
    Row('JPEG truncated', jpeg_cut, ('data/images/1.jpg is damaged', 'download them again')),
    Row('image empty',
        lambda p: (p.images / '1.png').write_bytes(b''),
        ('data/images/1.png is empty', 'download them again')),
    Row('image is a text file',
        lambda p: (p.images / '1.png').write_text('404: not found'),
        ('data/images/1.png is no image', 'download them again')),
    Row('a backend that mmcv does not have', config("load.update(imdecode_backend='cv3')"),
        ("data/images/0.png does not decode with imdecode_backend='cv3', color_type='color' ("
         'backend: cv3 is not supported',)),
    Row('image of another size than annotated', image(width=80, height=64),
        (f'{KEY}.ann_file: images of another size', 'data/images/1.png 40x32, annotated 80x64')),
    Row('category_id unknown', annotation(category_id=3),
        (f'{FILE}: annotations whose category_id is not in categories: 1 (category_id 3 of '
         'annotation 2 of 1.png', 'Correct them in the file')),
    Row('bbox with NaN', annotation(bbox=[4, float('nan'), 2, 2]),
        (f'{FILE}: annotations with NaN or infinity in bbox or area', 'annotation 2 of 1.png')),
    Row('bbox of two numbers', annotation(bbox=[4, 4]),
        (f'{FILE}: annotations whose bbox is not four numbers', 'annotation 2 of 1.png')),
    Row('bbox of strings', annotation(bbox=['4', '4', '2', '2']),
        (f'{FILE}: annotations whose bbox is not four numbers',)),
    Row('annotation without area', annotation(area=None),
        (f'{FILE}: annotations without area: 1 (number 1)', 'Correct them')),
    Row('annotation ids twice', annotation(id=1),
        (f'{FILE}: annotation ids that are used twice: 1 (id 1)', 'Number the annotations anew')),
    Row('image ids twice', image(id=0),
        (f'{FILE}: image ids that are used twice: 1 (id 0 of 0.png and 1.png)', 'images anew')),
    Row('category ids twice', categories('cat', 'dog', ids=(1, 1)),
        (f'{FILE}: category ids that are used twice',)),
    Row('category names twice', categories('cat', 'cat'),
        (f'{KEY}.metainfo.classes: classes twice among the categories of data/boxes.json',)),
    Row('classes that the file does not have', categories('horse', 'dog'),
        (f'{KEY}.metainfo.classes: classes that are not among the categories of data/boxes.json: '
         '1 (cat)', 'The file has horse, dog', "metainfo=dict(classes=('horse',))")),
    Row('classes not set, so COCO\'s 80', config("train_dataloader['dataset'].pop('metainfo')"),
        (f'{KEY}.metainfo.classes: classes that are not among', '(person, bicycle, car, ...)')),
    Row('metainfo in capitals, as in mmdet 2',
        config("train_dataloader['dataset'].update(metainfo=dict(CLASSES=('cat', 'dog')))"),
        (f'{KEY}.metainfo.classes: keys that are not read: 1 (metainfo.CLASSES)', 'small letters')),
    Row('one class without a comma',
        config("train_dataloader['dataset'].update(metainfo=dict(classes=('cat')))"),
        (f"{KEY}.metainfo.classes is the string 'cat'", "classes=('cat',)")),
    Row('num_classes of the head too small', config("model['bbox_head']['num_classes'] = 1"),
        ('model.bbox_head.num_classes is 1', f'{KEY}.metainfo has 2 classes', 'set it to 2')),
    Row('num_classes of the head too large', config("model['bbox_head']['num_classes'] = 80"),
        ('model.bbox_head.num_classes is 80', 'set it to 2')),
    Row('masks wanted, but not annotated', masks_in_the_pipeline,
        (f'{FILE}: annotations without segmentation: 1 (annotation 2 of 1.png', 'with_mask=False')),
    Row('data_prefix of another key',
        config("train_dataloader['dataset'].update(data_prefix=dict(img_path='images'))"),
        (f'{KEY}.data_prefix: keys in place of img: 1 (img_path)', 'dict(img=FOLDER)')),
    Row('metric with another file than the dataset', other_file_for_the_metric,
        ('val_evaluator.ann_file data/other.json: images of the dataset', '2 (2.png, 3.png)',
         'Set it to data/val.json')),
    Row('data_root missing', config("train_dataloader['dataset']['data_root'] = 'nowhere'"),
        (f'{KEY}.data_root: nowhere', 'Put the data there')),
    Row('an option that the dataset does not have',
        config("train_dataloader['dataset'].update(img_prefix='images')"),
        (f'{KEY} cannot be built', 'img_prefix')),
]  # fmt: skip


@pytest.mark.parametrize('row', REFUSED, ids=lambda row: row.name)
def test_refused(detection, tool, refused, row):
    row.make(detection)
    refused(tool('train'), ['config.py'], row.messages)


def grey(p):
    p.save(p.images / '1.png', np.zeros((32, 40)))


def unlabeled(p):
    del p.coco['annotations']
    p.write_coco()
    p.write_config(
        "train_dataloader['dataset']['pipeline'][1] = dict(type='LoadEmptyAnnotations')\n"
    )


def extra_image(**values):
    def make(p):
        image = {'id': 9, 'file_name': 'gone.png', 'width': 40, 'height': 32}
        p.coco['images'].append(image)
        p.write_coco()
        p.write_config(f"train_dataloader['dataset'].update({values!r})\n")

    return make


# What mmdet leaves out or bears must not stop anybody: the log tells, unless it is harmless.
BORNE = [
    Row('nothing wrong', lambda p: None, ()),
    Row('a grey image, which the loader turns into colours', grey, ()),
    Row('a crowd', annotation(iscrowd=1, segmentation={'size': [32, 40], 'counts': [1280]}), ()),
    Row('a category that is no class', categories('cat', 'dog', 'horse', ids=(1, 2, 3)), ()),
    Row('an annotation to ignore', annotation(ignore=1, bbox=[0, 0, float('nan'), 0]), ()),
    Row('an image without boxes, left out by filter_cfg, that is missing',
        extra_image(filter_cfg={'filter_empty_gt': True}), ()),
    Row('a missing image that indices leave out', extra_image(indices=4), ()),
    Row('unlabeled images', unlabeled, ()),
    Row('a box that ends a pixel beyond the image', annotation(bbox=[20, 4, 21, 20]), ()),
    Row('a box outside the image', annotation(bbox=[50, 4, 20, 20]),
        ('boxes outside the image: 1 (annotation 2 of 1.png: bbox [50, 4, 20, 20])',
         'mmdet leaves them out')),
    Row('a box half outside the image', annotation(bbox=[30, 4, 20, 20]),
        ('boxes that reach more than 2 pixels beyond the image', 'not two corners')),
    Row('a box of no size', annotation(bbox=[4, 4, 0, 20]), ('boxes of less than a pixel',)),
    Row('a box of negative size', annotation(bbox=[24, 4, -20, 20]),
        ('boxes of negative width or height: 1', '[left, top, width, height]')),
    Row('an annotation of another image', annotation(image_id=99),
        ('annotations of images not in the file: 1 (annotation 2 of image_id 99)',)),
    Row('a metric with a file of its own', same_images_for_the_metric,
        ("val_evaluator.ann_file: files of a metric other than its dataset's: 1 (data/other.json)",
         'not by those of data/val.json')),
    Row('classes in another order', categories('dog', 'cat'),
        (f'{KEY}.metainfo.classes: classes in another order',)),
]  # fmt: skip


@pytest.mark.parametrize('row', BORNE, ids=lambda row: row.name)
def test_borne(detection, told, row):
    told(detection, row)


def own_loading(p):
    p.write_coco('{"mine": 1}')
    (p.folder / 'own_dataset.py').write_text(
        'from mmdet.datasets import CocoDataset\n'
        'from mmdet.registry import DATASETS\n'
        '@DATASETS.register_module(force=True)\n'
        'class OwnDataset(CocoDataset):\n'
        '    def load_data_list(self):\n'
        '        return []\n'
    )


def test_a_dataset_with_its_own_loading_is_left_alone(detection, monkeypatch):
    own_loading(detection)
    monkeypatch.syspath_prepend(detection.folder)
    detection.write_config(
        "custom_imports['imports'].append('own_dataset')\n"
        "train_dataloader['dataset']['type'] = 'OwnDataset'\n"
    )
    assert check_data(load_config('config.py'), ('train',)) == []


def test_polygons_are_skipped_but_errors_in_the_rest_keep_their_place(detection):
    text = json.dumps(detection.coco, indent=1)
    detection.write_coco(text.replace('"file_name": "3.png",', '"file_name": "3.png"'))
    line = next(i for i, line in enumerate(text.splitlines(), 1) if '3.png' in line)
    with pytest.raises(Exception, match=rf'line {line + 1} column') as caught:
        check_data(load_config('config.py'), ('train',))
    assert 'data/boxes.json' in str(caught.value)


def test_heads_that_count_other_things_than_classes(detection):
    """The num_classes of an RPN alone is 1, whatever the classes are."""
    detection.write_config(
        "model = dict(type='RPN', backbone=backbone, neck=model['neck'], train_cfg=None,\n"
        "    rpn_head=dict(type='RPNHead', in_channels=8, feat_channels=8,\n"
        "        anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[1.0],\n"
        '            strides=[4, 8, 16, 32, 64])),\n'
        '    test_cfg=dict(rpn=dict(nms_pre=20)))\n'
    )
    cfg = load_config('config.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    assert model.bbox_head.num_classes == 1
    check_num_classes(model, cfg, ('train', 'val'))


@pytest.mark.filterwarnings('error::PIL.Image.DecompressionBombWarning')
def test_large_images_are_decoded_without_a_warning_and_other_warnings_stay(detection, monkeypatch):
    """The filters of warnings belong to the process, and the images are decoded in threads."""
    image = np.zeros((32, 40, 3))
    for i in range(4, 32):
        detection.save(detection.images / f'{i}.png', image)
        detection.coco['images'].append(
            {**detection.coco['images'][0], 'id': i, 'file_name': f'{i}.png'}
        )
    detection.write_coco()
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    before = list(warnings.filters)
    check_data(load_config('config.py'), ('train',))
    assert warnings.filters == before
