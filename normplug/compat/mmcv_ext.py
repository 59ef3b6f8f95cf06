"""A stand-in for the module `mmcv._ext`, for an mmcv that was installed without compiled operators.

`mmcv.ops` takes its kernels from `mmcv._ext` and cannot be imported without it. The kernels that
this package has, by torchvision or plain torch, are in `ops/`.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types

import torch

from normplug.compat.ops import OPERATORS

__all__ = ['ADVICE', 'TorchvisionExt', 'compiled_extension', 'install']

_NAME = 'mmcv._ext'
# Advice for a missing operator.
ADVICE = (
    'this mmcv was installed without compiled operators, and normplug has no replacement. '
    f'Install an mmcv that was built with its operators for torch {torch.__version__} (from '
    'source, with MMCV_WITH_OPS=1), or use another layer in the config.'
)


def install() -> None:
    """Put a torchvision-backed `mmcv._ext` into `sys.modules`, unless there is a compiled one.

    Imports neither mmcv nor torchvision, and does nothing where mmcv is not installed.
    """
    if _NAME in sys.modules or importlib.util.find_spec('mmcv') is None or compiled_extension():
        return
    sys.modules[_NAME] = TorchvisionExt()


def compiled_extension() -> str | None:
    """Return the path of mmcv's compiled `_ext` for this Python, or None; does not import mmcv."""
    mmcv = importlib.util.find_spec('mmcv')
    if mmcv is None or mmcv.submodule_search_locations is None:
        return None
    # PathFinder and not importlib.util.find_spec, which would import the parent package.
    spec = importlib.machinery.PathFinder.find_spec(_NAME, mmcv.submodule_search_locations)
    return spec.origin if spec else None


class TorchvisionExt(types.ModuleType):
    """The module that replaces `mmcv._ext`: our operators, and a stub for every other one.

    A stub can be looked up, as `mmcv.ops` does at import, and raises NotImplementedError when
    called.

    Attributes:
        missing: Names of the operators that were looked up and are stubs.
    """

    def __init__(self) -> None:
        """Add the functions of `normplug.compat.ops`."""
        super().__init__(_NAME, 'Operators of mmcv, computed by torchvision and plain torch.')
        self.__spec__ = importlib.machinery.ModuleSpec(_NAME, None, origin='torchvision')
        self.missing: set[str] = set()
        vars(self).update(OPERATORS)

    def __getattr__(self, name: str):
        """Return a stub for the operator `name`."""
        if name.startswith('__'):
            raise AttributeError(f'module {_NAME!r} has no attribute {name!r}')

        def missing(*args, **kwargs):
            raise NotImplementedError(f'mmcv.ops needs the compiled operator {name!r}: {ADVICE}')

        missing.__name__ = name
        self.missing.add(name)
        return missing
