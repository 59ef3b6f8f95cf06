"""The command lines of tools/train.py and tools/test.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from mmengine.config import Config, DictAction

from .config import (
    enable_amp,
    enable_auto_scale_lr,
    enable_tta,
    load_config,
    save_pictures,
    save_predictions,
    set_work_dir,
)
from .data_check import broken_json_explained
from .errors import exit_code
from .runner import build_runner
from .type_check import unknown_types_explained

__all__ = ['main_test', 'main_train']


def main_train(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says and return the exit code."""
    parser = _parser('train', 'Train a detector, segmentor or classifier.')
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
    return exit_code(lambda: _train(args), parser.prog)


def main_test(argv: Sequence[str] | None = None) -> int:
    """Test as the command line says and return the exit code."""
    parser = _parser('test', 'Evaluate a checkpoint on the test set of a config.')
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
    return exit_code(lambda: _test(args), parser.prog)


def _train(args: argparse.Namespace) -> None:
    cfg = _config(args)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    runner = build_runner(cfg, 'train')
    with unknown_types_explained(cfg), broken_json_explained(cfg):
        runner.train()


def _test(args: argparse.Namespace) -> None:
    cfg = _config(args)
    cfg.load_from = args.checkpoint
    if args.tta:
        enable_tta(cfg)
    if args.show_dir is not None:
        save_pictures(cfg, args.show_dir)
    if args.out is not None:
        save_predictions(cfg, args.out)
    runner = build_runner(cfg, 'test')
    with unknown_types_explained(cfg), broken_json_explained(cfg):
        runner.test()


def _parser(tool: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f'tools/{tool}.py', description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', metavar='DIR', help='logs and checkpoints; default: work_dirs/<config name>'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change the config, e.g. randomness.seed=1 "a.b=[1,2]" (no spaces in a value)',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _config(args: argparse.Namespace) -> Config:
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.launcher != 'none':
        # Old launchers pass the rank as an option; mmengine reads the variable.
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    set_work_dir(cfg, args.work_dir)
    return cfg
