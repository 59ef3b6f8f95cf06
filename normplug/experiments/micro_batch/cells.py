"""What is trained: each normalizer at each normalization batch, with each seed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from normplug.errors import UserError
from normplug.preflight.config import load_config

__all__ = ['Cell', 'cells_of', 'configured', 'find_configs', 'load_norm']


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        norm: the normalizer, by the name in its config's file name.
        batch: images whose statistics are taken together; None if the normalizer has none such.
        seed: of the weights, and of the order of the images.
    """

    norm: str
    batch: int | None
    seed: int

    def __str__(self) -> str:
        """As logs, folders and progress name it."""
        return f'{self.norm}_{"none" if self.batch is None else self.batch}_seed{self.seed}'


def find_configs(folder: Path) -> dict[str, Path]:
    """Normalizer → config, of the files MODEL_NORM_DATA.py in ``folder``; the others are bases.

    Raises:
        UserError: there is none.
    """
    parts = {path: path.stem.split('_') for path in sorted(folder.glob('*.py'))}
    found = {names[1]: path for path, names in parts.items() if len(names) == 3}
    if not found:
        raise UserError(f'--config-dir: {folder} has no config MODEL_NORM_DATA.py')
    return found


def load_norm(path: Path, options: dict | None, max_iters: int | None) -> Config:
    """The config of a normalizer, changed as the command line says.

    Raises:
        UserError: it cannot be read, lacks what the experiment needs, or an option does not fit.
    """
    cfg = load_config(str(path), options)
    needed = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'train_cfg')
    needed += ('task', 'data_root', 'normalization_batches')
    lacking = [key for key in needed if cfg.get(key) is None]
    if lacking:
        raise UserError(f'{path} has no {", ".join(lacking)}: see configs/micro_batch')
    if max_iters is not None:
        cfg.train_cfg.update(max_iters=max_iters, val_interval=max_iters)
        for scheduler in cfg.param_scheduler:
            if 'T_max' in scheduler:
                scheduler.T_max = max_iters
    return cfg


def cells_of(
    configs: dict[str, Config], batches: Sequence[int] | None, seeds: Sequence[int]
) -> list[Cell]:
    """All cells, seed by seed: an interrupted experiment has all normalizers of some seeds.

    Args:
        configs: by normalizer; those without ``normalization_batches`` get one cell a seed.
        batches: these instead of what the configs say.
        seeds: of each.

    Raises:
        UserError: a batch does not divide the optimizer's.
    """
    cells = []
    for seed in dict.fromkeys(seeds):
        for norm, cfg in configs.items():
            own = cfg.normalization_batches
            if not own:
                cells.append(Cell(norm, None, seed))
                continue
            for batch in dict.fromkeys(batches or own):
                images = cfg.train_dataloader.batch_size
                if batch < 1 or images % batch:
                    raise UserError(
                        f"--batches: {batch} does not divide the optimizer's batch of {images} "
                        'images (train_dataloader.batch_size)'
                    )
                cells.append(Cell(norm, batch, seed))
    return cells


def configured(cfg: Config, cell: Cell, work_dir: Path) -> Config:
    """A copy of the config of ``cell.norm`` that trains ``cell`` in a folder of its own."""
    cfg = copy.deepcopy(cfg)
    if cell.batch is not None:
        cfg.model.backbone.norm_cfg.virtual_batch_size = cell.batch
    cfg.randomness = {'seed': cell.seed}
    cfg.work_dir = str(work_dir / 'runs' / str(cell))
    cfg.experiment_name = str(cell)
    return cfg
