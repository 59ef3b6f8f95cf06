"""Raise on import if a required package is missing; the message has the command to install it."""

from importlib.util import find_spec

_missing = [name for name in ('torch', 'mmengine') if find_spec(name) is None]
if _missing:
    raise ImportError(
        f'normplug needs {" and ".join(_missing)}: pip install {" ".join(_missing)}; or, for the '
        'whole tested stack, `make setup` in its repository'
    )
