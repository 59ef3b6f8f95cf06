"""The tables of tools/reproduce.py: their rows are configs, their metrics are the configs'."""

import pytest

from normplug.experiments.reproduce.digits import digits_formats
from normplug.experiments.reproduce.rows import OWN_TEST
from normplug.experiments.reproduce.tables import TABLES
from tests.configs.loading import load as load_config

ROWS = [
    pytest.param(table, row, data, id=f'{table.name}-{row.name}-{data}')
    for table in TABLES.values()
    for row in table.rows
    for data in ('digits', 'real')
    if row.at(data) is not None
]
# Evaluator → what its metrics are called.
PREFIX = {'CocoMetric': 'coco/', 'Accuracy': 'accuracy/', 'IoUMetric': '', 'CityscapesMetric': ''}
PREFIX['AccMetric'] = 'acc/'
# Keys of a config that decide how it learns, beside its data and model.
LEARNING = ('train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr')


def load(name):
    return load_config(f'{name}.py')


@pytest.mark.parametrize(('table', 'row', 'data'), ROWS)
def test_every_row_is_a_config_that_gives_its_numbers(table, row, data):
    scale = row.at(data)
    cfg = load(scale.config)
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    for column in table.columns:
        if column.metric.startswith(('ratio/', 'train/')):
            continue
        kinds = [PREFIX[e.type.rpartition('.')[2]] for e in evaluators]
        assert any(column.metric.startswith(kind) for kind in kinds), column
        if 'segm' in column.metric:
            assert 'segm' in evaluators[0].metric
    for test in scale.tests:
        assert not test.tta or 'tta_model' in cfg
        if test.config is not None:
            other = load(test.config)
            for key in ('depth', 'type', 'norm_cfg', 'ibn_cfg'):
                assert other.model.backbone.get(key) == cfg.model.backbone.get(key), key
            assert other.test_dataloader.dataset != cfg.test_dataloader.dataset
    names = {OWN_TEST, *(test.name for test in scale.tests)}
    assert {column.test for column in table.columns} <= names


@pytest.mark.parametrize('table', TABLES.values(), ids=TABLES)
def test_published_numbers_are_of_the_columns(table):
    names = [row.name for row in table.rows]
    assert len(set(names)) == len(names)
    for row in table.rows:
        assert set(row.published) <= {column.name for column in table.columns}
        assert all(0 <= value <= 100 for value in row.published.values() if value is not None)
        assert row.real is not None or row.digits is not None


@pytest.mark.parametrize(
    ('table', 'formats'),
    [
        ('table5-cityscapes', {'cityscapes'}),
        ('ibn-gta5', {'cityscapes_day', 'cityscapes_night'}),
    ],
)
def test_rows_across_domains_have_one_light_and_others_their_own(table, formats):
    scales = [row.digits for row in TABLES[table].rows]
    configs = {test.config for scale in scales for test in scale.tests if test.config}
    configs |= {scale.config for scale in scales}
    assert {name for config in configs for name in digits_formats(load(config))} == formats


def test_rows_of_the_papers_tables_are_in_their_order():
    assert [row.name for row in TABLES['table3'].rows][-1] == 'SN/SN'
    assert TABLES['table3'].rows[-1].published['AP'] == 39.3
    assert TABLES['table4'].rows[-1].published == {
        'AP_b': 41.0,
        'AP50_b': 62.3,
        'AP75_b': 45.1,
        'AP_m': 36.5,
        'AP50_m': 58.9,
        'AP75_m': 38.7,
    }
    assert TABLES['table5-ade20k'].rows[-1].published['mIoU, multi-scale'] == 39.2


def without_norms(cfg):
    """The rest of a Faster R-CNN's config, beside its norms, their weights and its head."""
    left = cfg.to_dict()
    model = left['model']
    left = {k: v for k, v in left.items() if 'dataloader' in k or k in LEARNING}
    for key in ('norm_cfg', 'norm_eval', 'init_cfg'):
        model['backbone'].pop(key, None)
        model['neck'].pop(key, None)
    for key in ('type', 'norm_cfg', 'conv_out_channels'):
        model['roi_head']['bbox_head'].pop(key, None)
    # GN's released weights are of Detectron's pictures and convolutions.
    model.pop('data_preprocessor')
    model['backbone'].pop('style', None)
    return {**left, 'model': model}


@pytest.mark.parametrize('data', ['digits', 'real'])
@pytest.mark.parametrize('row', TABLES['table3-heads'].rows, ids=lambda row: row.name)
def test_rows_of_one_box_head_differ_in_the_norm_alone(row, data):
    """Norms of backbone, FPN and head are what the name says, and the published rows' own."""
    scale = row.at(data)
    cfg = load_config(f'{scale.config}.py')
    cfg.merge_from_dict(dict(scale.options))
    backbone, after = row.name.partition(',')[0].split('/')
    model, frozen = cfg.model, backbone.endswith('*')
    assert model.backbone.norm_cfg.type == backbone.strip('*')
    assert model.backbone.norm_cfg.requires_grad is not frozen
    assert model.backbone.norm_eval is frozen or backbone == 'GN'
    norm = None if after == '-' else after
    assert (model.neck.get('norm_cfg') or {}).get('type') == norm
    head = model.roi_head.bbox_head
    in_head = (head.get('norm_cfg') or {}).get('type')
    if row.group == '2 fc':
        assert head.type == 'Shared2FCBBoxHead'
    else:
        assert (head.type, in_head) == ('Shared4Conv1FCBBoxHead', norm)
        assert head.get('norm_cfg') == model.neck.get('norm_cfg')
    assert bool(row.published) is not bool(scale.options)
    assert without_norms(cfg) == without_norms(load(TABLES['table3'].rows[0].at(data).config))


def test_isw_is_beside_ibn_nets_rows_and_its_number_is_told_to_be_another_papers():
    table = TABLES['ibn-gta5']
    isw = [row for row in table.rows if row.name.startswith('ISW')]
    assert [(row.group, dict(row.published)) for row in isw] == [
        ('Cityscapes', {}),
        ('GTA5', {'mIoU, other domain': 36.58}),
    ]
    assert '36.58 is of a later paper with DeepLabV3+' in table.source
