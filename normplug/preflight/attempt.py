"""Check that a part of a config is accepted where it is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from normplug.errors import UserError

from .packages import is_about_a_package, package_advice

__all__ = ['REFUSALS', 'attempt', 'check_arguments', 'check_number']

# What constructors raise for a wrong argument.
REFUSALS = (TypeError, ValueError, KeyError, AssertionError)


def check_arguments(
    key: str, config: dict, built: Callable, also: Iterable[str] = (), less: Iterable[str] = ()
) -> None:
    """Check the names of the arguments of what is built from ``config``.

    Args:
        key: where ``config`` stands.
        config: arguments, and perhaps ``type`` and ``_scope_``.
        built: the class or function.
        also: further names that may stand there.
        less: arguments that are not given in a config.

    Raises:
        UserError: it takes no such argument.
    """
    parameters = inspect.signature(built).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [p.name for p in parameters if p.name not in ('self', *less)]
    names += [name for name in also if name not in names]
    for name in config:
        if name not in (*names, 'type', '_scope_'):
            raise UserError(
                f'{key}.{name}: {built.__name__} has no such argument; it takes '
                f'{", ".join(names) or "none"}'
            )


def check_number(key: str, value: Any, least: int) -> None:
    """Raise a UserError unless ``value`` is a whole number from ``least``."""
    if not (type(value) is int and value >= least):
        raise UserError(f'{key} must be a whole number from {least}, got {value!r}')


def attempt(
    key: str, build: Callable[[], Any], refusals: tuple[type[Exception], ...] = REFUSALS
) -> Any:
    """Return what ``build`` returns; None if it fails for want of the real training.

    Raises:
        UserError: it raised one of ``refusals``, or lacks a package.
        KeyError: it asked a registry for an unknown type.
    """
    try:
        return build()
    except refusals as error:
        if is_about_a_package(error):
            raise UserError(package_advice(key, '', str(error))) from error
        if isinstance(error, KeyError) and 'registry' in str(error):
            raise  # an unknown type, whose config key the caller finds
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        text = text or f'{type(error).__name__} while it was built'
        raise UserError(text if text.startswith(key) else f'{key}: {text}; correct it') from error
    except Exception as error:  # a part's own code, which may raise anything
        if is_about_a_package(error):
            raise UserError(package_advice(key, '', str(error))) from error
        return None  # it lacks what only the real training has, which is no fault of the value
