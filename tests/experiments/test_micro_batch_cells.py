"""Which trainings an experiment consists of, and what their configs say."""

from pathlib import Path

import pytest
from mmengine.config import Config
from torch import nn

from normplug.errors import UserError
from normplug.experiments.fingerprint import fingerprint
from normplug.experiments.micro_batch.cells import (
    Cell,
    cells_of,
    configured,
    find_configs,
    load_norm,
)
from normplug.experiments.micro_batch.task import build_task
from normplug.preflight.model import build_checked_model

CONFIGS = Path(__file__).parents[2] / 'configs/micro_batch'


def config(batches, images=8):
    return Config({'normalization_batches': batches, 'train_dataloader': {'batch_size': images}})


def load(norm, options=None, max_iters=None):
    pytest.importorskip('mmpretrain')
    return load_norm(find_configs(CONFIGS)[norm], options, max_iters)


def test_cells_come_seed_by_seed_and_a_norm_without_batches_has_one():
    configs = {'bn': config([2, 8]), 'gn': config([])}
    want = [
        ('bn', 2, 5),
        ('bn', 8, 5),
        ('gn', None, 5),
        ('bn', 2, 1),
        ('bn', 8, 1),
        ('gn', None, 1),
    ]
    assert cells_of(configs, None, [5, 1]) == [Cell(*values) for values in want]
    assert cells_of(configs, [4, 4], [0, 0]) == [Cell('bn', 4, 0), Cell('gn', None, 0)]


@pytest.mark.parametrize('batch', [3, 0, -2, 16])
def test_a_batch_must_divide_the_optimizers(batch):
    with pytest.raises(UserError, match=f'--batches: {batch} does not divide .* 8 images'):
        cells_of({'bn': config([2])}, [batch], [0])


def test_the_configs_are_found_by_norm_and_the_base_is_none():
    found = find_configs(CONFIGS)
    assert {'bn', 'gn', 'sn'} <= set(found)
    assert all(path.stem.endswith(f'_{norm}_cluttered-digits') for norm, path in found.items())


def test_a_folder_without_configs(tmp_path):
    (tmp_path / 'base_only.py').touch()
    with pytest.raises(UserError, match=r'--config-dir: .* has no config MODEL_NORM_DATA.py'):
        find_configs(tmp_path)


def test_a_config_of_another_kind(tmp_path):
    (tmp_path / 'a_b_c.py').write_text('model = dict()\n')
    with pytest.raises(UserError, match=r'has no train_dataloader, .*task, .*_batches: see'):
        load_norm(tmp_path / 'a_b_c.py', None, None)


def test_configs_differ_in_the_norm_alone():
    one, other = (load(norm).to_dict() for norm in ('bn', 'sn'))
    assert one['model']['backbone'].pop('norm_cfg') != other['model']['backbone'].pop('norm_cfg')
    assert one == other


def test_a_cell_sets_batch_and_seed_of_its_own_copy(tmp_path):
    cfg = load('bn')
    before = cfg.to_dict()
    own = configured(cfg, Cell('bn', 4, 3), tmp_path)
    assert own.randomness == {'seed': 3}
    assert Path(own.work_dir) == tmp_path / 'runs/bn_4_seed3'
    assert own.train_dataloader.batch_size == 16
    assert cfg.to_dict() == before
    norms = [m for m in build_checked_model(own).modules() if hasattr(m, 'virtual_batch_size')]
    assert len(norms) == 16
    assert {norm.virtual_batch_size for norm in norms} == {4}


def test_gn_is_left_as_it_is(tmp_path):
    own = configured(load('gn'), Cell('gn', None, 0), tmp_path)
    norms = [m for m in build_checked_model(own).modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 16
    assert own.experiment_name == 'gn_none_seed0'


def test_max_iters_ends_the_schedule_too():
    cfg = load('bn', max_iters=70)
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (70, 70)
    assert cfg.param_scheduler[1].T_max == 70
    assert cfg.param_scheduler[0].end == load('bn').param_scheduler[0].end


def test_the_fingerprint_is_that_of_the_settings():
    same = fingerprint(load('bn'))
    assert fingerprint(load('bn')) == same
    others = [load('sn'), load('bn', max_iters=7), load('bn', {'task.scene.contrast': 0.3})]
    assert len({same, *map(fingerprint, others)}) == 4


def test_the_task_is_written_once_and_read_by_both_loaders(tmp_path):
    options = {'data_root': str(tmp_path), 'task.train': 10, 'task.val': 5}
    said = []
    for contrast in (0.12, 0.12, 0.1):
        cfg = load('bn', {**options, 'task.scene.contrast': contrast})
        build_task(cfg, said.append)
        (root,) = {cfg[name].dataset.data_root for name in ('train_dataloader', 'val_dataloader')}
        for split, images in (('train', 20), ('val', 10)):
            assert len(list(Path(root, split).glob('*/*.png'))) == images
    assert len(list(tmp_path.iterdir())) == 2
    assert ['already there' in line for line in said] == [False, True, False]


@pytest.mark.parametrize(
    ('options', 'what'),
    [
        ({'task.scene.nope': 1}, 'nope'),
        ({'task.trian': 1}, 'trian'),
        ({'task.train': 0}, '--train 0'),
        ({'task.scene.size': 8}, '--size 8'),
        ({'task.scene.photos': ['moon.jpg']}, 'moon.jpg'),
        ({'task.scene.contrast': 2.0}, 'found no place'),
    ],
)
def test_a_task_that_does_not_fit(tmp_path, options, what):
    cfg = load('bn', {'data_root': str(tmp_path), **options})
    with pytest.raises(UserError, match=rf'^task, in the config or by --cfg-options: .*{what}'):
        build_task(cfg, print)
