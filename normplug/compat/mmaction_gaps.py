"""What mmaction2 1.2 names and does not have.

`mmaction.models.localizers.drn` is not in its wheel, and gets a stand-in.

Without it no module of `mmaction.models` can be imported (open-mmlab/mmaction2#2714). An mmaction2
that was installed from its repository in editable mode has it.

Its registry of functions looks for its modules in `mmaction.mmengine`, which is nowhere.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

from mmengine.registry import Registry

from normplug.compat.on_import import on_import

__all__ = ['StandIn', 'has_localizer', 'install']

_NAME = 'mmaction.models.localizers.drn.drn'


def install() -> None:
    """Put the stand-in into `sys.modules`, unless the module is there; correct the registry later.

    Does not import mmaction, and does nothing where it is not installed or has no localizers.
    """
    on_import('mmaction.registry', _drop_absent_locations)
    if _NAME not in sys.modules and has_localizer() is False:
        sys.modules[_NAME] = StandIn()


def _drop_absent_locations(module: types.ModuleType) -> None:
    registries = [value for value in vars(module).values() if isinstance(value, Registry)]
    for registry in registries:
        if registry.scope == 'mmaction':  # the module also holds those of mmengine
            registry._locations = [
                location for location in registry._locations if _is_there(location)
            ]


def _is_there(location: str) -> bool:
    """Whether the top of a module's path below mmaction is there; imports nothing."""
    return importlib.util.find_spec('.'.join(location.split('.')[:2])) is not None


def has_localizer() -> bool | None:
    """Return whether the installed mmaction has the module; None if it has no localizers."""
    package = importlib.util.find_spec('mmaction')
    folders = (package and package.submodule_search_locations) or ()
    # Not by importlib, which would import the packages above.
    localizers = [Path(folder, 'models/localizers') for folder in folders]
    if not any(folder.is_dir() for folder in localizers):
        return None
    return any(any(folder.glob('drn/drn.*')) for folder in localizers)


class StandIn(types.ModuleType):
    """The module that replaces the missing one: its class `DRN` cannot be built."""

    def __init__(self) -> None:
        """An empty module of that name."""
        super().__init__(_NAME, 'Missing in the wheel of mmaction2.')
        self.__spec__ = importlib.machinery.ModuleSpec(_NAME, None, origin='normplug')

    def __getattr__(self, name: str):
        """Return the class, and register it in mmaction, at the first look-up."""
        if name != 'DRN':
            raise AttributeError(f'module {_NAME!r} has no attribute {name!r}')
        from mmaction.registry import MODELS

        self.DRN = MODELS.register_module(name='DRN', module=DRN)
        return self.DRN


class DRN:
    """What `type='DRN'` finds in mmaction2 without the module."""

    def __init__(self, *args, **kwargs) -> None:
        """Refuse.

        Raises:
            ImportError: always.
        """
        raise ImportError(
            'DRN: the wheel of mmaction2 lacks the module mmaction.models.localizers.drn. Install '
            "mmaction2 from a clone of its repository, by 'pip install --no-deps -e .' there"
        )
