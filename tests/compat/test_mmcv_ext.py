"""The stand-in for `mmcv._ext`, and where it is put."""

import importlib.machinery
import subprocess
import sys

import pytest
import torch

from normplug.compat import mmcv_ext
from normplug.compat.ops import kernels, nms
from tests.compat.ops.mmcv_operators import ops, ours_only


@ours_only
def test_what_is_missing_raises_when_called():
    with pytest.raises(NotImplementedError, match=r"operator 'box_iou_rotated'.*MMCV_WITH_OPS=1"):
        ops.box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))
    with pytest.raises(AttributeError, match='__path__'):
        _ = sys.modules['mmcv._ext'].__path__


@ours_only
def test_mmcv_s_environment_report_works():
    assert ops.get_compiler_version() == 'none (operators from torchvision)'


@pytest.fixture
def fake_mmcv(tmp_path, monkeypatch):
    """An importable folder `mmcv` that fails when imported; no `mmcv._ext` loaded."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('raise AssertionError("mmcv was imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    for name in ('mmcv', 'mmcv._ext'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return package


def test_install_fills_the_gap_without_importing_mmcv(fake_mmcv):
    assert mmcv_ext.compiled_extension() is None
    mmcv_ext.install()
    ext = sys.modules.pop('mmcv._ext')
    assert isinstance(ext, mmcv_ext.TorchvisionExt)
    assert ext.nms is nms.nms
    assert 'mmcv' not in sys.modules


def test_a_compiled_ext_is_left_alone(fake_mmcv):
    library = fake_mmcv / f'_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}'
    library.touch()
    assert mmcv_ext.compiled_extension() == str(library)
    mmcv_ext.install()
    assert 'mmcv._ext' not in sys.modules


def test_a_loaded_ext_is_left_alone(fake_mmcv, monkeypatch):
    loaded = object()
    monkeypatch.setitem(sys.modules, 'mmcv._ext', loaded)
    mmcv_ext.install()
    assert sys.modules['mmcv._ext'] is loaded


def test_nothing_happens_without_mmcv(fake_mmcv, monkeypatch):
    monkeypatch.setattr(mmcv_ext.importlib.util, 'find_spec', lambda name: None)
    assert mmcv_ext.compiled_extension() is None
    mmcv_ext.install()
    assert 'mmcv._ext' not in sys.modules


def test_a_missing_torchvision_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    with pytest.raises(RuntimeError, match=r'belongs to torch.*python -m normplug'):
        kernels.torchvision_ops()


@pytest.mark.slow
@ours_only
def test_mmcv_ops_imports_in_a_fresh_process():
    code = (
        'import sys; from normplug.compat import mmcv_ext; mmcv_ext.install();'
        'assert not {"mmcv", "torchvision"} & set(sys.modules); import mmcv.ops;'
        'assert "torchvision" not in sys.modules; print(mmcv.ops.nms.__name__)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, 'nms'), done.stderr
