"""The command lines of tools/train.py and tools/test.py, and of `python -m normplug train|test`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmengine.config import Config

from normplug.errors import exit_code
from normplug.preflight.config import add_config_arguments, load_config
from normplug.preflight.data import broken_json_explained, unreadable_files_explained
from normplug.preflight.types import unknown_types_explained

from .last_evaluation import train
from .options import (
    enable_amp,
    enable_auto_scale_lr,
    enable_tta,
    save_pictures,
    save_predictions,
    set_work_dir,
)
from .runner import build_runner

__all__ = ['main_test', 'main_train', 'read_test_config', 'read_train_config']


def main_train(argv: Sequence[str] | None = None, prog: str = 'tools/train.py') -> int:
    """Train as the command line says and return the exit code."""
    return exit_code(lambda: _train(read_train_config(argv, prog)), prog)


def main_test(argv: Sequence[str] | None = None, prog: str = 'tools/test.py') -> int:
    """Test as the command line says and return the exit code."""
    return exit_code(lambda: _test(read_test_config(argv, prog)), prog)


def read_train_config(argv: Sequence[str] | None = None, prog: str = 'tools/train.py') -> Config:
    """Return the config of a training, changed as the command line says.

    Raises:
        UserError: an option does not fit the config.
    """
    parser = _parser(prog, 'Train a detector, segmentor or classifier.')
    parser.add_argument('--amp', action='store_true', help='mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the real batch size over auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='continue from PATH, or without PATH from the last checkpoint in the work dir',
    )
    args = parser.parse_args(argv)
    cfg = _config(args)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    return cfg


def read_test_config(argv: Sequence[str] | None = None, prog: str = 'tools/test.py') -> Config:
    """Return the config of a test, changed as the command line says.

    Raises:
        UserError: an option does not fit the config.
    """
    parser = _parser(prog, 'Evaluate a checkpoint on the test set of a config.')
    parser.add_argument('checkpoint', help='the checkpoint; must be of the model of the config')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='draw the predictions for every image into DIR'
    )
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='save the predictions: NAME.pkl, or for segmentation a folder of PNG label maps',
    )
    args = parser.parse_args(argv)
    cfg = _config(args)
    cfg.load_from = args.checkpoint
    if args.tta:
        enable_tta(cfg)
    if args.show_dir is not None:
        save_pictures(cfg, args.show_dir)
    if args.out is not None:
        save_predictions(cfg, args.out)
    return cfg


def _train(cfg: Config) -> None:
    runner = build_runner(cfg, 'train')
    with _data_errors_explained(cfg):
        train(runner)


def _test(cfg: Config) -> None:
    runner = build_runner(cfg, 'test')
    with _data_errors_explained(cfg):
        runner.test()


@contextmanager
def _data_errors_explained(cfg: Config) -> Iterator[None]:
    """Name what the checks beforehand could not see."""
    with unknown_types_explained(cfg), broken_json_explained(cfg), unreadable_files_explained():
        yield


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir', metavar='DIR', help='logs and checkpoints; default: work_dirs/<config name>'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    return parser


def _config(args: argparse.Namespace) -> Config:
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.local_rank is not None:
        # Old launchers pass the rank as an option; mmengine reads the variable.
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    set_work_dir(cfg, args.work_dir)
    return cfg
