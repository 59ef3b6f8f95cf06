"""`_base_ = 'normplug::…'` in this environment; tests/package has it in one with a wheel."""

from pathlib import Path

import pytest
from mmengine.config import Config

from normplug.compat import base_configs
from normplug.compat.base_configs import find_config

CONFIGS = Path(__file__).parents[2] / 'configs'
PRETRAIN = 'pretrain/resnet18-w32_sn_digits.py'


@pytest.fixture
def child(tmp_path):
    """Write a config with this text, in a folder of its own; return it as it is read."""

    def read(text):
        path = tmp_path / 'child.py'
        path.write_text(text)
        return Config.fromfile(path)

    return read


def write(folder, name, text='x = 1\n'):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_repository_gives_its_own_configs():
    """Not the copies that an editable installation leaves behind, which nobody updates."""
    if not (CONFIGS.parent / 'normplug').samefile(base_configs._PACKAGE):
        pytest.skip('another normplug than this repository is imported')
    assert find_config(f'normplug::{PRETRAIN}') == str(CONFIGS / PRETRAIN)


def test_a_wheel_gives_those_inside_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(base_configs, '_PACKAGE', tmp_path / 'normplug')
    write(tmp_path, 'configs/a/b.py')  # another project's, beside us in site-packages
    inside = write(tmp_path, 'normplug/.mim/configs/a/b.py')
    assert find_config('normplug::a/b.py') == inside


def test_errors_name_the_config_and_what_to_do(monkeypatch, tmp_path, child):
    near = 'normplug has no config normplug::pretrain/resnet18-w32_ns_digits.py. Near it: normplug:'
    with pytest.raises(FileNotFoundError, match=near):
        child("_base_ = 'normplug::pretrain/resnet18-w32_ns_digits.py'")
    monkeypatch.setattr(base_configs, '_PACKAGE', tmp_path / 'nowhere/normplug')
    with pytest.raises(FileNotFoundError, match='installed without its configs'):
        child("_base_ = 'normplug::a/b.py'")


def test_other_prefixes_are_left_to_mmengine(child):
    with pytest.raises(AssertionError, match='does not support to load nowhere config'):
        child("_base_ = 'nowhere::a/b.py'")
    with pytest.raises(ValueError, match=r'nowhere::a/b\.py: mmengine does not support'):
        Config.fromfile('nowhere::a/b.py')
    base_configs.install()  # once more changes nothing
    assert base_configs._mmengine_get_cfg_path is not Config._get_cfg_path
    assert base_configs._mmengine_fromfile is not Config.fromfile
    pytest.importorskip('mmdet')
    assert child("_base_ = 'mmdet::_base_/default_runtime.py'").default_scope == 'mmdet'


def test_a_base_of_ours_is_no_scope(monkeypatch, tmp_path, child):
    """Its types stay those of `default_scope`: a `_scope_` of ours would hide them."""
    monkeypatch.setattr(base_configs, '_PACKAGE', tmp_path / 'normplug')
    base = "default_scope = 'mmdet'\nmodel = dict(type='A', backbone=dict(type='B', depth=1))\n"
    write(tmp_path, 'normplug/.mim/configs/a/b.py', base)
    cfg = child(
        "_base_ = ['normplug::a/b.py']\n"
        'mine = _base_.model.backbone\n'
        'model = dict(backbone=dict(depth=2))\n'
    )
    assert cfg.default_scope == 'mmdet'
    assert cfg.mine == {'type': 'B', 'depth': 1}
    assert cfg.model == {'type': 'A', 'backbone': {'type': 'B', 'depth': 2}}
    assert cfg.dump().count('_scope_') == 0


def test_a_package_is_looked_through_once_a_base(monkeypatch, child):
    """mmengine reads all of its metafiles each time."""
    asked = []
    mmengines = base_configs._mmengine_get_cfg_path

    def count(*args):
        asked.append(args[0])
        return mmengines(*args)

    base_configs._in_package.cache_clear()
    monkeypatch.setattr(base_configs, '_mmengine_get_cfg_path', count)
    pytest.importorskip('mmdet')
    text = "_base_ = 'mmdet::_base_/schedules/schedule_1x.py'"
    first, second = child(text), child(text)
    assert first.train_cfg.max_epochs == second.train_cfg.max_epochs == 12
    assert [name for name in asked if '::' in name] == ['mmdet::_base_/schedules/schedule_1x.py']


NAMES = [
    'mmdet::_base_/default_runtime.py',
    'mmaction::_base_/default_runtime.py',
    'mmaction::recognition/i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py',
]


@pytest.mark.parametrize('name', NAMES)
def test_a_name_is_read_wherever_a_path_is(name, child):
    scope = name.partition('::')[0]
    pytest.importorskip(scope)
    cfg = Config.fromfile(name)
    assert cfg.default_scope == scope
    own = child(f"_base_ = '{name}'").get('model') or {}
    assert cfg.get('model', {}) == {k: v for k, v in own.items() if k != '_scope_'}
    with pytest.raises(FileNotFoundError, match=r'not/there\.py'):
        Config.fromfile(f'{scope}::not/there.py')


def test_our_names_too():
    pytest.importorskip('mmpretrain')  # on its default_runtime it is built
    assert Config.fromfile(f'normplug::{PRETRAIN}').filename == str(CONFIGS / PRETRAIN)


def test_a_path_with_colons_is_a_path(tmp_path):
    assert Config.fromfile(write(tmp_path, 'a::b/c.py', 'y = 3')).y == 3
