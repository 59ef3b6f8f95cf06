"""The command lines of tools/deploy.py and tools/export_onnx.py."""

from __future__ import annotations

import argparse
import os
import os.path as osp
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from normplug.errors import UserError, exit_code
from normplug.preflight.config import add_config_arguments, load_config
from normplug.preflight.config_types import package_of, scope_of
from normplug.preflight.data import broken_json_explained, unreadable_files_explained
from normplug.preflight.types import unknown_types_explained

from .convert import TOLERANCE, deploy
from .network import Batch, load_model, random_batch
from .onnx_graph import check_installed, export_onnx

__all__ = ['main_deploy', 'main_export']

_SHAPES = [(2, 3, 64, 96), (1, 3, 129, 97), (1, 3, 224, 224)]
_CLIPS = [(2, 3, 8, 64, 96), (1, 3, 24, 65, 49), (1, 3, 16, 64, 64)]  # SlowFast takes eights


def main_deploy(argv: Sequence[str] | None = None, prog: str = 'tools/deploy.py') -> int:
    """Deploy a model by the command line; return the exit code."""
    parser = _parser(
        prog, 'Turn the norms of a trained model into native layers, and fold them away.'
    )
    parser.add_argument('out_dir', help='the folder to write config.py and model.pth into')
    parser.add_argument(
        '--fold',
        nargs='+',
        default=[],
        metavar='PATTERN',
        help='norm layers that have to be folded: it is an error if one cannot',
    )
    args = parser.parse_args(argv)
    return exit_code(lambda: _deploy(args), prog)


def main_export(argv: Sequence[str] | None = None, prog: str = 'tools/export_onnx.py') -> int:
    """Export a model by the command line; return the exit code."""
    parser = _parser(
        prog,
        'Export backbone and neck of a detector, or a segmentor, classifier or 3D recognizer up to '
        'its logits.',
    )
    parser.add_argument('out', metavar='OUT.onnx', help='the file to write')
    parser.add_argument(
        '--fixed-shape',
        action='store_true',
        help='take inputs of this shape only, not of any size',
    )
    args = parser.parse_args(argv)
    return exit_code(lambda: _export(args), prog)


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='the checkpoint; must be of the model of the config')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        help='of the random inputs to check on: N C H W, of a 3D recognizer N C T H W',
    )
    return parser


def _deploy(args: argparse.Namespace) -> None:
    if osp.lexists(args.out_dir) and not (osp.isdir(args.out_dir) and not os.listdir(args.out_dir)):
        raise UserError(f'OUT_DIR: {args.out_dir} exists; name another folder')
    cfg = load_config(args.config, args.cfg_options)
    shapes = _shapes(cfg) if args.shape is None else [_shape(args, cfg)]
    batches = [random_batch(cfg, shape, seed) for seed, shape in enumerate(shapes)]
    model, dataset_meta = load_model(cfg, args.checkpoint)
    images, note = _test_images(cfg, model)
    plan, difference = deploy(cfg, model, dataset_meta, args.out_dir, batches + images, args.fold)
    for line in plan.lines():
        print(line)
    print(
        f'outputs unchanged up to {difference:.1e} of the largest (allowed: {TOLERANCE:.0e}), on '
        f'{len(batches)} random batches and {note}'
    )
    print(f'written: {args.out_dir}/config.py and {args.out_dir}/model.pth')


def _export(args: argparse.Namespace) -> None:
    check_installed()
    if osp.lexists(args.out):
        raise UserError(f'OUT.onnx: {args.out} exists; name another file')
    cfg = load_config(args.config, args.cfg_options)
    shape = _shapes(cfg)[-1] if args.shape is None else _shape(args, cfg)
    model, _ = load_model(cfg, args.checkpoint)
    difference = export_onnx(cfg, model, args.out, shape, args.fixed_shape)
    print(f'onnxruntime differs from torch by {difference:.1e} of the largest output')
    print(f'written: {args.out}')


def _shapes(cfg: Config) -> list[tuple[int, ...]]:
    return _CLIPS if package_of(cfg) == 'mmaction' else _SHAPES


def _shape(args: argparse.Namespace, cfg: Config) -> tuple[int, ...]:
    axes = 'N C H W' if len(_shapes(cfg)[0]) == 4 else 'N C T H W'
    if len(args.shape) != len(axes.split()) or min(args.shape) < 1:
        raise UserError(f'--shape: positive numbers {axes} for this model, got {args.shape}')
    return tuple(args.shape)


def _test_images(cfg: Config, model: nn.Module) -> tuple[list[Batch], str]:
    """Return the first batch of the test set, if its data are there, and a note."""
    loader = cfg.get('test_dataloader')
    if not loader:
        return [], 'no test images (the config has no test_dataloader)'
    with (
        unknown_types_explained(cfg),
        broken_json_explained(cfg),
        unreadable_files_explained(),
        DefaultScope.overwrite_default_scope(scope_of(cfg)),
    ):
        try:
            loader = Runner.build_dataloader(dict(loader, num_workers=0, persistent_workers=False))
            data = next(iter(loader))
        except (FileNotFoundError, StopIteration):
            return [], 'no test images (those of test_dataloader are not there)'
        batch = model.data_preprocessor(data, False)
    inputs, samples = batch['inputs'], batch['data_samples']
    if package_of(cfg) == 'mmaction':
        inputs = inputs.flatten(0, 1)[:2]  # of the clips of a video two will do
        return [Batch(inputs, [])], f'{len(inputs)} test clips'
    return [Batch(inputs, samples)], f'{len(inputs)} test images'
