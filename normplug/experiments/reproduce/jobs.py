"""Rows → commands: pretrainings, trainings and tests, each in a folder of its own."""

from __future__ import annotations

import copy
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from normplug.compat.base_configs import find_config
from normplug.errors import UserError
from normplug.preflight.config import load_config

from .digits import describe_digits
from .launchers import Launcher
from .rows import OWN_TEST, Row, Scale, Table

__all__ = ['Job', 'JobPlan', 'Settings', 'last_checkpoint_name', 'plan']

# What a test is: the training's folder beside it.
_TRAIN = 'train'


@dataclass(frozen=True)
class Settings:
    """What the command line decides.

    Attributes:
        data: 'digits' or 'real'.
        work_dir: of the whole.
        launcher: how trainings are started.
        options: KEY=VALUE for every row's config.
        own_pretraining: a seed starts from the pretraining of that seed, not from that of seed 0.
    """

    data: str
    work_dir: Path
    launcher: Launcher
    options: Mapping[str, Any] = field(default_factory=dict)
    own_pretraining: bool = False


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        name: as progress and logs name it.
        folder: its work dir.
        config: the config's path.
        cfg: what it says, with the options.
        options: KEY=VALUE of ``--cfg-options``.
        needs: the folders of jobs that must have ended well.
        processes: that share a training: its batch, and its learning rate with that.
        checkpoint: what is tested; None for a training.
        tta: of a test.
    """

    name: str
    folder: Path
    config: str
    cfg: Config
    options: tuple[str, ...]
    needs: tuple[Path, ...]
    processes: int = 1
    checkpoint: Path | None = None
    tta: bool = False

    @property
    def trains(self) -> bool:
        """Whether it is a training, not a test."""
        return self.checkpoint is None

    @cached_property
    def fingerprint(self) -> str:
        """Of the config with its options, its digits, its processes, and how it is tested."""
        how = f'-{self.processes}' if self.trains else '-tta' if self.tta else ''
        text = json.dumps(self.cfg.to_dict(), sort_keys=True, default=str)
        digits = describe_digits(self.cfg)
        text += json.dumps(digits, sort_keys=True) if digits else ''
        return hashlib.sha256(text.encode()).hexdigest()[:12] + how

    @property
    def of_row(self) -> Path:
        """The folder that has those of all seeds, and of the tests too."""
        return self.folder.parents[1]

    def command(self, launcher: Launcher, resume: bool) -> list[str]:
        """What is started; the same can be typed into a shell."""
        files = [self.config] if self.trains else [self.config, str(self.checkpoint)]
        arguments = ['--work-dir', str(self.folder)]
        if self.tta:
            arguments.append('--tta')
        if self.trains and 'base_batch_size' in (self.cfg.get('auto_scale_lr') or {}):
            arguments.append('--auto-scale-lr')
        if resume:
            arguments.append('--resume')
        arguments += ['--cfg-options', *self.options] if self.options else []
        tool = 'train' if self.trains else 'test'
        name = '-'.join(self.folder.parts[-3:-1])
        return launcher.command(tool, name, files, arguments)

    def shell_command(self, launcher: Launcher) -> str:
        """For people to read."""
        command = self.command(launcher, resume=False)
        shown = ['python' if part == sys.executable else part for part in command]
        variables = ''.join(f'{k}={v} ' for k, v in launcher.env.items() if k != 'PYTHON')
        return variables + shlex.join(shown)


@dataclass(frozen=True)
class JobPlan:
    """All jobs, in the order of their start, and where each table's cells come from.

    Attributes:
        jobs: by folder.
        cells: (table, row, seed) → test → the folder that holds its metrics.
    """

    jobs: dict[Path, Job]
    cells: dict[tuple[str, str, int], dict[str, Path]]


def plan(
    tables: Mapping[Table, Sequence[Row]], seeds: Sequence[int], settings: Settings
) -> JobPlan:
    """The jobs of the chosen rows of tables; a training that two of them share is one job.

    Seed by seed, so that an interrupted command has all rows of some seeds.

    Raises:
        UserError: a config cannot be read, or an option does not fit it.
    """
    made = JobPlan({}, {})
    for seed in seeds:
        for table, rows in tables.items():
            for row in rows:
                scale = row.at(settings.data)
                if scale is None:
                    continue
                cells = {}
                for test, job in _jobs_of(scale, seed, settings):
                    known = made.jobs.setdefault(job.folder, job)
                    if known.fingerprint != job.fingerprint:
                        raise UserError(
                            f'--cfg-options: {job.name} is a row and the pretraining of others, '
                            'which keep their own settings: give its table a command of its own, '
                            'with another --work-dir'
                        )
                    if test is not None:
                        cells[test] = job.folder
                made.cells[table.name, row.name, seed] = cells
    return made


def last_checkpoint_name(cfg: Config) -> str:
    """The file that a training ends with, as mmengine's CheckpointHook names it."""
    train = cfg.train_cfg
    by_iter = train.get('max_iters') is not None
    return f'iter_{train.max_iters}.pth' if by_iter else f'epoch_{train.max_epochs}.pth'


def _jobs_of(scale: Scale, seed: int, settings: Settings) -> Iterator[tuple[str | None, Job]]:
    """(Which test of the row, or None for what only prepares it, job), what is needed first."""
    pretraining = _pretraining(_changed(_path(scale.config), scale.options))
    options, needs = {'randomness.seed': seed}, ()
    if pretraining is not None:
        # With its own options only: it is one for all rows, whatever is changed about these.
        own = replace(settings, options={})
        first = seed if settings.own_pretraining else 0
        before = _training(Scale(pretraining), first, {'randomness.seed': first}, (), own)
        yield None, before
        checkpoint = before.folder / last_checkpoint_name(before.cfg)
        options['model.backbone.init_cfg.checkpoint'] = str(checkpoint)
        needs = (before.folder,)
    training = _training(scale, seed, options, needs, settings)
    yield OWN_TEST, training
    checkpoint = training.folder / last_checkpoint_name(training.cfg)
    changes = {**scale.options, **settings.options}
    for test in scale.tests:
        own = _path(test.config or scale.config)
        yield (
            test.name,
            Job(
                f'{training.name}, {test.name}',
                training.folder.with_name(test.name.replace(' ', '-')),
                own,
                _changed(own, changes),
                _texts(changes),
                (training.folder,),
                checkpoint=checkpoint,
                tta=test.tta,
            ),
        )


def _training(
    scale: Scale, seed: int, options: dict[str, Any], needs: tuple[Path, ...], settings: Settings
) -> Job:
    own = settings.work_dir / settings.data / (scale.config + scale.variant)
    path, options = _path(scale.config), {**scale.options, **options, **settings.options}
    cfg = _changed(path, options)
    name, folder = f'{own.name} seed {seed}', own / f'seed{seed}' / _TRAIN
    return Job(name, folder, path, cfg, _texts(options), needs, settings.launcher.gpus)


@lru_cache(None)
def _load(path: str) -> Config:
    """Read once: mmengine takes about a second for each."""
    return load_config(path)


def _changed(path: str, options: Mapping[str, Any]) -> Config:
    cfg = copy.deepcopy(_load(path))
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError) as error:
        raise UserError(f'--cfg-options does not fit {path}: {error.args[0]}') from error
    return cfg


def _pretraining(cfg: Config) -> str | None:
    """The config of ours whose training the backbone starts from, if there is one."""
    initial = cfg.model.get('backbone', {}).get('init_cfg') or {}
    initial = initial if isinstance(initial, dict) else {}
    folder = Path(initial.get('checkpoint') or '').parent
    if folder.parent.name != 'work_dirs':
        return None
    return f'imagenet/{folder.name}'


def _path(config: str) -> str:
    path = find_config(f'normplug::{config}.py')
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _texts(options: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f'{key}={_text(value)}' for key, value in options.items())


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f'[{",".join(map(_text, value))}]'
    return str(value)
