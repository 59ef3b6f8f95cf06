"""What a job leaves in its folder: that it was begun, and how it ended."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from normplug.checkpoints.source import CheckpointError
from normplug.errors import UserError
from normplug.files import write
from normplug.reports.ratios import normalizers_in, read_ratios
from normplug.reports.runs import read_run

from .jobs import Job, last_checkpoint_name

__all__ = ['BEGUN', 'DONE', 'begin', 'finish', 'is_begun', 'read_done']

# Beside the folder's own files, and not mmengine's: a training may clean up after itself.
BEGUN = 'begun.json'
DONE = 'done.json'


def read_done(job: Job) -> dict[str, Any] | None:
    """The record of a job that ended well; None if it has not.

    A test of a training that has been done again since has not: it was of other weights.

    Raises:
        UserError: the folder holds a run of other settings, or a file there cannot be read.
    """
    for name in (BEGUN, DONE):
        record = _read(job.folder / name)
        if record is not None and record.get('fingerprint') != job.fingerprint:
            raise UserError(
                f'--work-dir: {job.folder} holds a run of other settings (the config, '
                '--cfg-options or the scenes of the digits have changed since): choose another '
                '--work-dir, or remove that folder'
            )
    record = _read(job.folder / DONE)
    return record if record is None or record.get('of') == _tested(job) else None


def is_begun(job: Job) -> bool:
    """Whether there is a checkpoint to go on from."""
    return job.trains and (job.folder / 'last_checkpoint').exists()


def begin(job: Job) -> None:
    """Say in its folder what is trained there.

    Raises:
        WriteError: nothing can be written there.
    """
    _write(job.folder / BEGUN, {'fingerprint': job.fingerprint})


def finish(job: Job, seconds: float, source: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """Read what the job wrote, and keep it as its record.

    Args:
        job: it ended with exit code 0.
        seconds: that it took, in this session.
        source: provenance.
        processes: of a training, each with a batch of the config's size.

    Raises:
        UserError: it left no metrics.
    """
    record = {'fingerprint': job.fingerprint, 'seconds': round(seconds, 1), **source}
    try:
        found = _of_training(job, processes) if job.trains else {'metrics': _of_test(job)}
    except (OSError, LookupError, ValueError) as error:
        raise UserError(f'{job.folder}: its records cannot be read: {error!r}') from error
    record |= found
    if not job.trains:
        record['of'] = _tested(job)
    _write(job.folder / DONE, record)
    return record


def _tested(job: Job) -> str | None:
    """Which training a test is of: a digest of its record; None for a training."""
    if job.trains:
        return None
    done = job.checkpoint.parent / DONE
    return hashlib.sha256(done.read_bytes()).hexdigest()[:12] if done.exists() else 'none'


def _of_training(job: Job, processes: int) -> dict[str, Any]:
    run = read_run(job.folder)
    train = job.cfg.train_cfg
    end = train.max_iters if train.get('max_iters') is not None else train.max_epochs
    if not run.val or run.val[-1]['step'] != end:
        raise UserError(
            f'{job.folder}: the training ended without an evaluation of its last checkpoint; see '
            f'the log there (train_cfg.val_interval must divide {end})'
        )
    batch = job.cfg.train_dataloader.batch_size * processes
    iterations = run.train[-1]['iter']
    return {
        'metrics': {
            **_numbers(run.val[-1]),
            **_mean_ratios(job.folder / last_checkpoint_name(job.cfg)),
            'train/loss': run.train[-1]['loss'],
        },
        'iterations': iterations,
        'images_per_second': batch * iterations / run.train_seconds,
        'peak_memory': run.peak_memory,
    }


def _of_test(job: Job) -> dict[str, float]:
    found = sorted(job.folder.glob('*/*.json'))
    if not found:
        raise UserError(f'{job.folder}: the test left no metrics; see its log')
    return _numbers(json.loads(found[-1].read_text()))


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if isinstance(value, (int, float))}


def _mean_ratios(checkpoint: Path) -> dict[str, float]:
    """Ratio of each normalizer, over all layers and both statistics; nothing without SN or SW."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            ratios = read_ratios(checkpoint)
    except CheckpointError:
        return {}
    rows = [row for layer in ratios.values() for row in layer.values()]
    return {
        f'ratio/{name}': mean(row.get(name, 0.0) for row in rows)
        for name in ('IN', 'LN', 'BN', *normalizers_in([ratios]))
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f'--work-dir: {path} cannot be read ({error}): remove it') from error


def _write(path: Path, record: Mapping[str, Any]) -> None:
    write(path, json.dumps(record, indent=1).encode(), '--work-dir')
