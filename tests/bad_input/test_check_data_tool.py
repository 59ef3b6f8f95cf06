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
