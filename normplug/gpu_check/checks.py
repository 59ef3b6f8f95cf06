"""Run checks one after the other; a failed check does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

__all__ = ['Check', 'FailedError', 'Result', 'Setting', 'SkippedError', 'perform']

_LONGEST = 500  # characters of an exception; compilers write pages


class FailedError(Exception):
    """A check failed; the message says what it found."""


class SkippedError(Exception):
    """A check cannot run here; the message says why."""


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
        run: returns what it found; raises FailedError if that is wrong.
        gpus: number of GPUs that it needs.
    """

    name: str
    run: Callable[[], str]
    gpus: int = 0


class Result(NamedTuple):
    """The result of a check."""

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
        group: name of the group.
        checks: checks of the group.
        device: 'cpu' or 'cuda'.
        limit: seconds after which no further check starts.
        say: function that gets a line for each check.
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
    except RuntimeError:  # after an illegal access the CUDA context of the process cannot be used
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
