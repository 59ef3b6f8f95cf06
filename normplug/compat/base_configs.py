"""`_base_ = 'normplug::…'`: the configs that come with the package, wherever it is installed.

mmengine accepts such a prefix for a fixed list of packages only, uses it as a registry scope too,
and does not find the files of an editable installation. Ours is not a scope: the types in our
configs are those of mmdet, mmseg, mmpretrain and mmaction. So a base of ours is treated like a
path: its types are looked up in the `default_scope` of the whole config.

mmengine also takes its prefixes, such as `mmaction::`, in `_base_` alone. Here `Config.fromfile`
takes them all.
"""

from __future__ import annotations

import difflib
from functools import lru_cache, wraps
from pathlib import Path

from mmengine.config import Config

__all__ = ['PREFIX', 'find_config', 'install', 'is_named']

PREFIX = 'normplug::'
_PACKAGE = Path(__file__).parents[1]
_mmengine_get_cfg_path = Config._get_cfg_path
_mmengine_fromfile = Config.fromfile


def install() -> None:
    """Make mmengine resolve the prefixes. Calling it again changes nothing."""
    Config._get_cfg_path = staticmethod(_get_cfg_path)
    Config.fromfile = staticmethod(_fromfile)


def find_config(name: str) -> str:
    """Return the path of a config, named `normplug::faster_rcnn/….py` or `mmaction::….py`.

    Raises:
        FileNotFoundError: There is none of this name, or normplug was installed without them.
        ModuleNotFoundError: The package of the prefix is not installed.
        ValueError: mmengine does not know the prefix.
    """
    if name.startswith(PREFIX):
        return _find_ours(name)
    try:
        return _in_package(name)[0]
    except AssertionError as error:
        raise ValueError(f'{name}: {error}') from error


def is_named(path: object) -> bool:
    """Whether ``path`` is the name of a package's config, and no path."""
    return '::' in str(path) and not Path(path).exists()


def _find_ours(name: str) -> str:
    folders = _PACKAGE / '.mim/configs', _PACKAGE.parent / 'configs'  # of a wheel, of a repository
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f'{name}: this normplug was installed without its configs, which a wheel has in '
            f'{folders[0]}. Install it by pip from its repository or a wheel.'
        )
    path = folder / name.removeprefix(PREFIX)
    if not path.is_file():
        known = [path.relative_to(folder).as_posix() for path in folder.rglob('*.py')]
        close = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1, cutoff=0.6)
        hint = f'Near it: {PREFIX}{close[0]}' if close else f'Its configs lie in {folder}'
        raise FileNotFoundError(f'normplug has no config {name}. {hint}')
    return str(path)


def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
    """Return the path of a base and its scope if it has one, as mmengine's function does."""
    if cfg_path.startswith(PREFIX):
        return _find_ours(cfg_path), None
    if '::' in cfg_path:
        return _in_package(cfg_path)
    return _mmengine_get_cfg_path(cfg_path, filename)


@wraps(_mmengine_fromfile)
def _fromfile(filename, *args, **kwargs) -> Config:
    return _mmengine_fromfile(
        find_config(filename) if is_named(filename) else filename, *args, **kwargs
    )


@lru_cache(None)  # mmengine reads all metafiles of the package for each base: a second a config
def _in_package(cfg_path: str) -> tuple[str, str | None]:
    return _mmengine_get_cfg_path(cfg_path, '')
