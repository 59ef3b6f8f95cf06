"""A change that waits for a module's import."""

import importlib
import sys

import pytest

from normplug.compat import on_import as module
from normplug.compat.on_import import on_import


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `late` with a module `late.part`; nothing stays behind."""
    (tmp_path / 'late').mkdir()
    (tmp_path / 'late/__init__.py').touch()
    (tmp_path / 'late/part.py').write_text('value = 1\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, '_CHANGES', {})
    monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))
    yield
    for name in ('late', 'late.part'):
        sys.modules.pop(name, None)


def double(imported):
    imported.value *= 2


def test_it_comes_right_after_the_import_and_once(package):
    on_import('late.part', double)
    on_import('late.part', double)
    assert 'late' not in sys.modules
    from late.part import value

    assert value == 2
    importlib.import_module('late.part')
    assert sys.modules['late.part'].value == 2


def test_an_imported_module_is_changed_at_once(package):
    late = importlib.import_module('late.part')
    on_import('late.part', double)
    on_import('late.part', double)
    assert late.value == 2


def test_a_module_that_is_not_there_is_still_missing(package):
    on_import('late.other', double)
    with pytest.raises(ModuleNotFoundError, match=r'late\.other'):
        importlib.import_module('late.other')


def test_the_finder_is_added_once(package):
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not module._Finder]
    on_import('late.part', double)
    on_import('late.other', double)
    assert sys.meta_path.count(module._Finder) == 1
