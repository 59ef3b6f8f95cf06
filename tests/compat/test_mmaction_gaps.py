"""What mmaction2's wheel lacks: the stand-in and where it is put; what its registries name."""

import subprocess
import sys

import pytest
from mmengine.registry import Registry

from normplug.compat import mmaction_gaps

NAME = 'mmaction.models.localizers.drn.drn'


@pytest.fixture
def fake_mmaction(tmp_path, monkeypatch):
    """An importable folder `mmaction` that fails when imported; nothing of it is loaded."""
    localizers = tmp_path / 'mmaction/models/localizers'
    localizers.mkdir(parents=True)
    for folder in (localizers, *localizers.parents[:2]):
        (folder / '__init__.py').write_text('raise AssertionError("mmaction was imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmaction']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    return localizers


def test_install_fills_the_gap_without_importing_mmaction(fake_mmaction):
    assert mmaction_gaps.has_localizer() is False
    mmaction_gaps.install()
    assert isinstance(sys.modules.pop(NAME), mmaction_gaps.StandIn)
    assert 'mmaction' not in sys.modules


@pytest.mark.parametrize('with_init', [False, True], ids=['clone', 'package'])
def test_an_mmaction_that_has_the_module_is_left_alone(fake_mmaction, with_init):
    (fake_mmaction / 'drn').mkdir()
    (fake_mmaction / 'drn/drn.py').touch()
    if with_init:
        (fake_mmaction / 'drn/__init__.py').touch()
    assert mmaction_gaps.has_localizer()
    mmaction_gaps.install()
    assert NAME not in sys.modules


def test_a_folder_without_the_module_is_a_gap(fake_mmaction):
    (fake_mmaction / 'drn').mkdir()
    assert mmaction_gaps.has_localizer() is False


def test_a_loaded_module_is_left_alone(fake_mmaction, monkeypatch):
    loaded = object()
    monkeypatch.setitem(sys.modules, NAME, loaded)
    mmaction_gaps.install()
    assert sys.modules[NAME] is loaded


def test_an_mmaction_of_other_localizers_needs_none(fake_mmaction):
    (fake_mmaction / '__init__.py').unlink()
    fake_mmaction.rename(fake_mmaction.parent / 'others')
    assert mmaction_gaps.has_localizer() is None
    mmaction_gaps.install()
    assert NAME not in sys.modules


def test_nothing_happens_without_mmaction(fake_mmaction, monkeypatch):
    monkeypatch.setattr(mmaction_gaps.importlib.util, 'find_spec', lambda name: None)
    assert mmaction_gaps.has_localizer() is None
    mmaction_gaps.install()
    assert NAME not in sys.modules


def test_the_class_is_registered_and_refuses_to_be_built():
    registry = pytest.importorskip('mmaction.registry')
    if mmaction_gaps.has_localizer():
        pytest.skip('this mmaction2 has the module')
    with pytest.raises(ImportError, match=r'DRN: the wheel of mmaction2 lacks .*pip install'):
        registry.MODELS.build(dict(type='DRN', vocab_size=1))
    with pytest.raises(ImportError, match='cannot import name'):
        exec(f'from {NAME} import FPN')


def test_every_registry_can_be_asked():
    module = pytest.importorskip('mmaction.registry')
    for registry in vars(module).values():
        if isinstance(registry, Registry):
            assert registry.get('NoSuchType') is None
    assert module.MODELS._locations == ['mmaction.models']


@pytest.mark.slow
def test_mmaction_models_imports_in_a_fresh_process():
    pytest.importorskip('mmaction')
    code = (
        'import sys, normplug\n'
        'assert not any(name == "mmaction" for name in sys.modules)\n'
        'import mmaction.models\n'
        'print(mmaction.models.DRN.__module__)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
