"""Checks, run one after the other: none stops the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

__all__ = ['Check', 'FailedError', 'Result', 'Setting', 'SkippedError', 'perform']

_LONGEST = 500  # characters of an exception; compilers write pages


class FailedError(Exception):
    """What a check looks for is wrong; the message says what was seen."""


class SkippedError(Exception):
    """A check cannot be made here; the message says why."""


@dataclass(frozen=True)
class Setting:
    """What the checks run on.

    Attributes:
        device: 'cuda' or 'cpu'.
        backends: of ``normplug.ops.backend.BACKENDS``.
        quick: fewer and smaller inputs.
        tables: rows of measurements by name, which the speed checks add.
    """

    device: str
    backends: Sequence[str] = ('eager', 'compiled')
    quick: bool = False
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Check(NamedTuple):
    """One check.

    Attributes:
        name: of the check, within its group.
        run: gives what was seen; raises where that is wrong.
        gpus: how many it needs.
    """

    name: str
    run: Callable[[], str]
    gpus: int = 0


class Result(NamedTuple):
    """What came of a check."""

    group: str
    name: str
    state: Literal['ok', 'failed', 'skipped']
    seen: str
    seconds: float


def perform(
    group: str, checks: Iterable[Check], device: str, limit: float, say: Callable[[str], None]
) -> list[Result]:
    """Run the checks of one group.

    Args:
        group: its name.
        checks: of the group.
        device: 'cpu' or 'cuda'.
        limit: seconds after which no further check begins.
        say: takes a line for each check.
    """
    gpus = torch.cuda.device_count() if device == 'cuda' else 0
    start = time.perf_counter()
    results = []
    for check in checks:
        begun = time.perf_counter()
        if check.gpus > gpus:
            state, seen = 'skipped', f'needs {_gpus(check.gpus)}'
        elif begun - start > limit:
            state, seen = 'skipped', f'not reached in {limit:.0f} s: raise --minutes'
        else:
            state, seen = _run(group, check, device)
        result = Result(group, check.name, state, seen, time.perf_counter() - begun)
        say(f'{group}: {check.name}: {state}: {seen} [{result.seconds:.1f} s]')
        results.append(result)
    return results


def _gpus(number: int) -> str:
    return 'a GPU' if number == 1 else f'{number} GPUs'


def _run(group: str, check: Check, device: str) -> tuple[Literal['ok', 'failed', 'skipped'], str]:
    try:
        if device == 'cuda':
            torch.cuda.synchronize()
    except RuntimeError:  # after an illegal access the process's context takes no more work
        return 'skipped', f'an earlier check broke the GPU for this process: --only {group}'
    try:
        seen = check.run()
        if device == 'cuda':
            torch.cuda.synchronize()  # an error of its kernels is this check's
    except SkippedError as error:
        return 'skipped', str(error)
    except torch.OutOfMemoryError as error:
        return 'skipped', f'not enough memory: {str(error).splitlines()[0][:_LONGEST]}'
    except FailedError as error:
        return 'failed', str(error)
    except Exception as error:  # whatever it is, it is a result
        text = ' '.join(str(error).split())
        return 'failed', f'{type(error).__name__}: {text[:_LONGEST]}'
    return 'ok', seen
