"""A row at digits scale is the row at full scale, but for a list of keys."""

from fnmatch import fnmatch

import pytest
from mmengine.config import Config

from tests.configs import (
    rows_batch_noise,
    rows_classification,
    rows_detection,
    rows_segmentation,
    rows_video,
)
from tests.configs.loading import load
from tests.configs.scales import differences, not_allowed

ROWS = (rows_detection, rows_segmentation, rows_classification, rows_batch_noise, rows_video)
TWINS = [(full, digits, rows.WHITELIST) for rows in ROWS for full, digits in rows.TWINS.items()]


@pytest.mark.parametrize(('full', 'digits', 'whitelist'), TWINS, ids=[row[1] for row in TWINS])
def test_scales_differ_in_what_is_listed(full, digits, whitelist):
    assert not_allowed(load(full), load(digits), whitelist) == []


@pytest.mark.parametrize('rows', ROWS)
def test_the_list_is_no_longer_than_it_must_be(rows):
    used = {
        key for full, digits in rows.TWINS.items() for key in differences(load(full), load(digits))
    }
    assert [p for p in rows.WHITELIST if not any(fnmatch(key, p) for key in used)] == []


def test_differences_are_found():
    one = Config(dict(model=dict(a=1, b=[dict(type='X', c=1)], d=[1, 2]), unused=1))
    other = Config(dict(model=dict(a=2, b=[dict(type='X', c=2)], d=[1]), train_cfg=dict(e=1)))
    assert differences(one, other) == {'model.a', 'model.b.0.c', 'model.d', 'train_cfg'}
    assert not_allowed(one, other, ('model.b.*', 'model.d')) == ['model.a', 'train_cfg']
