"""tools/check_data.py lists everything that is wrong, and changes nothing."""

import numpy as np
import pytest
from bad_input_projects import contents


@pytest.fixture
def check(tool, folder, capsys):
    def run(*argv):
        before = contents(folder)
        code = tool('check_data')(['config.py', *argv])
        assert contents(folder) == before
        return code, capsys.readouterr()

    return run


def test_good_data(detection, check):
    code, printed = check()
    assert code == 0
    assert printed.out == 'no errors in the data of config.py (train, val)\n'


def test_warnings_alone_are_no_failure(detection, check):
    detection.change_annotation(bbox=[50, 4, 20, 20])
    code, printed = check()
    assert code == 0
    assert printed.out.startswith(
        'warning: train_dataloader.dataset.ann_file data/boxes.json: boxes outside the image: 1. '
    )
    assert '\n  annotation 2 of 1.png: bbox [50, 4, 20, 20]\n' in printed.out


def test_every_case_is_listed(detection, check):
    for i in range(4):
        detection.truncate(detection.images / f'{i}.png')
    code, printed = check('--phases', 'train')
    assert code == 2
    assert 'error: train_dataloader.dataset: images that cannot be read: 4. ' in printed.out
    for i in range(4):
        assert f'\n  data/images/{i}.png is damaged' in printed.out
    assert printed.err == (
        'tools/check_data.py: error: 4 errors in the data of config.py, listed above\n'
    )


def test_it_decodes_what_the_start_of_a_training_does_not(segmentation, check):
    """Of many images, a training looks at 32 before it starts."""
    for i in range(4, 70):
        segmentation.save(segmentation.images / f'{i:03}.png', np.zeros((8, 8, 3)))
        segmentation.save(segmentation.labels / f'{i:03}.png', np.full((8, 8), i % 2))
    segmentation.save(segmentation.labels / '005.png', np.full((8, 8), 7))
    segmentation.save(segmentation.labels / '038.png', np.full((8, 8), 9))
    code, printed = check('--phases', 'train')
    assert code == 2
    assert '\n  data/labels/005.png with 7\n  data/labels/038.png with 9\n' in printed.out


def test_a_class_that_never_occurs(segmentation, check):
    for path in segmentation.labels.iterdir():
        segmentation.save(path, np.where(np.arange(40) < 9, 0, 255)[None].repeat(32, 0))
    code, printed = check('--phases', 'train')
    assert code == 0
    assert 'classes that never occur: 1. ' in printed.out
    assert '\n  dog\n' in printed.out


def voc(p, missing=False):
    """The images as VOC's, in a dataset of a type that is read by its own code."""
    for name in ('JPEGImages', 'Annotations'):
        (p.folder / 'data' / name).mkdir()
    for i in range(4):
        (p.images / f'{i}.png').rename(p.folder / f'data/JPEGImages/{i}.jpg')
        if not missing:
            size = '<size><width>40</width><height>32</height></size>'
            xml = p.folder / f'data/Annotations/{i}.xml'
            xml.write_text(f'<annotation>{size}</annotation>')
    (p.folder / 'data/main.txt').write_text('0\n1\n2\n3\n')
    p.write_config(
        "train_dataloader['dataset'] = dict(type='mmdet.VOCDataset', data_root='data',\n"
        "    ann_file='main.txt', data_prefix=dict(sub_data_root=''), pipeline=dataset['pipeline'])"
    )


def test_the_images_of_other_types_are_decoded(detection, check):
    voc(detection)
    code, printed = check('--phases', 'train')
    assert code == 0
    name = 'train_dataloader.dataset (VOCDataset)'
    assert f'not looked at: {name}: its annotations, beyond that they can be read' in printed.out
    assert 'no errors in what was looked at of the data of config.py (train)' in printed.out
    detection.truncate(detection.folder / 'data/JPEGImages/2.jpg')
    code, printed = check('--phases', 'train')
    assert code == 2
    assert '\n  data/JPEGImages/2.jpg is damaged' in printed.out


def test_types_that_write_files_are_left_alone(detection, check):
    """CrowdHuman's own code would write the sizes of the images beside them."""
    (detection.folder / 'data/train.odgt').write_text('{"ID": "0", "gtboxes": []}\n')
    detection.write_config(
        "train_dataloader['dataset'] = dict(type='CrowdHumanDataset', data_root='data',\n"
        "    ann_file='train.odgt', data_prefix=dict(img='images'), pipeline=[load])\n"
    )
    code, printed = check('--phases', 'train')  # it compares the folder before and after
    assert code == 0
    assert 'not looked at: train_dataloader.dataset (CrowdHumanDataset): ' in printed.out


def test_other_types_that_cannot_be_read(detection, check):
    voc(detection, missing=True)
    code, printed = check('--phases', 'train')
    assert code == 2
    assert 'data that VOCDataset cannot read: 1. ' in printed.out
    assert 'Annotations/0.xml' in printed.out


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ("backend_args=dict(backend='petrel')", 'its files are not on this machine'),
        ("data_prefix=dict(img='s3://bucket')", 'its files are not on this machine'),
    ],
)
def test_what_is_elsewhere_is_not_looked_at(detection, check, change, reason):
    detection.write_config(f"train_dataloader['dataset'].update({change})\n")
    code, printed = check('--phases', 'train')
    assert code == 0
    assert f'not looked at: train_dataloader.dataset (CocoDataset): {reason}\n' in printed.out
    assert 'no errors in what was looked at of the data' in printed.out


@pytest.mark.parametrize(
    'wrapped',
    [
        "dict(type='RepeatDataset', times=2, dataset=dataset)",
        "dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=dataset)",
        "dict(type='MultiImageMixDataset', dataset=dataset, pipeline=[])",
        "dict(type='ConcatDataset', datasets=[dataset, dict(dataset, indices=2)])",
        'dict(dataset, lazy_init=True)',
    ],
)
def test_wrapped_datasets_are_looked_at(detection, check, wrapped):
    detection.write_config(f"train_dataloader['dataset'] = {wrapped}\n")
    assert check('--phases', 'train')[0] == 0
    (detection.images / '1.png').write_bytes(b'')
    code, printed = check('--phases', 'train')
    assert code == 2
    assert 'data/images/1.png is empty' in printed.out


def test_num_classes_of_the_config(detection, check):
    detection.write_config("model['bbox_head']['num_classes'] = 80\n")
    code, printed = check()
    assert code == 2
    assert 'model.bbox_head.num_classes is 80, but train_dataloader.dataset' in printed.err


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['gone.py'], 'config file gone.py does not exist'),
        (['config.py', '--phases', 'training'], "invalid choice: 'training'"),
        (['config.py', '--cfg-options', 'a'], "'a' is not KEY=VALUE"),
        (
            ['config.py', '--cfg-options', 'train_dataloader.dataset.data_root=gone'],
            'train_dataloader.dataset.data_root: gone',
        ),
    ],
)
def test_wrong_command_lines(detection, tool, refused, argv, message):
    refused(tool('check_data'), argv, [message])
