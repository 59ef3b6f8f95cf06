"""Count compilations, and compile without a cache: what the first user on a machine waits for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from normplug.ops import compiled

__all__ = ['compilations', 'empty_cache', 'forget_compiled', 'ran_by']

_CACHES = ('TORCHINDUCTOR_CACHE_DIR', 'TRITON_CACHE_DIR')


def compilations() -> int:
    """Graphs compiled in this process so far."""
    return compiled.count()


def ran_by(backend: str, compiled: int) -> str:
    """Return the backend; for 'auto' the one in use, by the number of ``compiled`` graphs."""
    if backend != 'auto':
        return backend
    return 'compiled' if compiled else 'eager'


def forget_compiled() -> None:
    """Drop compiled code from memory; files in the cache stay."""
    compiled.forget()


@contextmanager
def empty_cache() -> Iterator[None]:
    """Compile into a new folder, and delete it at the end."""
    before = {name: os.environ.get(name) for name in _CACHES}
    with tempfile.TemporaryDirectory(prefix='normplug-bench-') as folder:
        os.environ.update({name: os.path.join(folder, name.lower()) for name in _CACHES})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
