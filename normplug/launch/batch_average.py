"""The command line of tools/batch_average.py: precise BN for a checkpoint."""

from __future__ import annotations

import argparse
import io
import os.path as osp
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process

from normplug.errors import UserError, exit_code
from normplug.files import write
from normplug.population import (
    PopulationError,
    batches_of_all_ranks,
    estimate_population,
    population_loader,
)
from normplug.preflight.checkpoint import check_strict, read_checkpoint
from normplug.preflight.config import add_config_arguments, load_config
from normplug.preflight.data import broken_json_explained, check_data, unreadable_files_explained
from normplug.preflight.model import build_checked_model
from normplug.preflight.types import check_types, unknown_types_explained

from .distributed import errors_on_all_ranks, join_process_group

__all__ = ['main_batch_average']


def main_batch_average(
    argv: Sequence[str] | None = None, prog: str = 'tools/batch_average.py'
) -> int:
    """Recompute the running statistics of a checkpoint; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Precise BN: replace the running statistics of all norms in a checkpoint by '
        'those of training data without augmentation. Frozen norms keep theirs. The output has the '
        'weights and the meta data, not the state of the optimizer.',
    )
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='the checkpoint; must be of the model of the config')
    parser.add_argument('output', help='the file to write')
    parser.add_argument(
        '--batches',
        type=int,
        default=200,
        metavar='N',
        help='batches of each process (default: 200)',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    args = parser.parse_args(argv)
    return exit_code(lambda: _recompute(args), prog)


def _recompute(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    join_process_group(cfg)
    with errors_on_all_ranks():
        _check(cfg, args)
        checkpoint = read_checkpoint(args.checkpoint, 'checkpoint')
        model = build_checked_model(cfg)
        check_strict(model, checkpoint, args.checkpoint, 'checkpoint')  # which loads it
        seed = (cfg.get('randomness') or {}).get('seed') or 0
        try:
            with unknown_types_explained(cfg), broken_json_explained(cfg):
                loader = population_loader(cfg, seed=seed)
        except ValueError as error:
            raise UserError(str(error)) from error
    model.to(get_device())
    number = batches_of_all_ranks(loader, args.batches)
    try:
        with unreadable_files_explained():
            unseen = estimate_population(model, loader, number)
    except PopulationError as error:
        raise UserError(f'{args.checkpoint}: {error}') from error
    if is_main_process():
        _save(model.cpu().state_dict(), checkpoint.get('meta') or {}, args.output)
        print(f'{args.output}: precise BN, running statistics of {number} batches a process')
        if unseen:
            print(f'unchanged, because prediction does not use them: {", ".join(unseen)}')


def _check(cfg: Config, args: argparse.Namespace) -> None:
    if args.batches < 1:
        raise UserError(f'--batches must be at least 1, not {args.batches}')
    if osp.exists(args.output):
        raise UserError(f'output: {args.output} exists; name another file')
    lacking = [key for key in ('model', 'train_dataloader') if cfg.get(key) is None]
    if lacking:
        raise UserError(f'the config has no {", ".join(lacking)}')
    check_types(cfg, ('train', 'val'))
    check_data(cfg, ('train',))


def _save(state: dict, meta: dict, output: str) -> None:
    buffer = io.BytesIO()
    torch.save({'state_dict': state, 'meta': meta}, buffer)
    write(output, buffer.getvalue(), 'output')
