"""Fail on import, with the command that mends it, where a package that all stands on is missing."""

from importlib.util import find_spec

_missing = [name for name in ('torch', 'mmengine') if find_spec(name) is None]
if _missing:
    raise ImportError(
        f'normplug needs {" and ".join(_missing)}: pip install {" ".join(_missing)}; or, for the '
        'whole tested stack, `make setup` in its repository'
    )
