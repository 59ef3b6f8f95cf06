"""The command line of tools/convert_checkpoint.py."""

from __future__ import annotations

import argparse
import io
import os.path as osp
from collections.abc import Sequence

import torch

from normplug.errors import UserError, exit_code
from normplug.files import write
from normplug.preflight.config import load_config
from normplug.preflight.config_types import package_of
from normplug.preflight.model import build_checked_model

from .convert import Conversion, convert
from .fit import check_fit, check_network, norms_in
from .layers import KINDS
from .names import LAYOUTS, default_layout
from .source import KEPT, Source, read

__all__ = ['main_convert']


def main_convert(
    argv: Sequence[str] | None = None, prog: str = 'tools/convert_checkpoint.py'
) -> int:
    """Convert a checkpoint by the command line; return the exit code."""
    args = _parser(prog).parse_args(argv)
    return exit_code(lambda: _convert(args), prog)


def _parser(prog: str) -> argparse.ArgumentParser:
    layouts = '; '.join(f'{name}: {text}' for name, text in LAYOUTS.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Convert a checkpoint of the released SN, SSN, IBN-Net, SW, IterNorm or GW '
        "code to this package's networks and back, or a batch norm or SN network's to another "
        'norm.',
    )
    add = parser.add_argument
    add('source', help='the checkpoint')
    add('output', help='the file to write')
    add('--to', choices=LAYOUTS, help=f'{layouts} (default: model if it has a backbone.*, else '
        'backbone)')  # fmt: skip
    add('--norm', choices=KINDS, help='what the norm layers become; IBN: those of IBN-Net-a')
    add('--config', help='a config whose model must fit; its norms are taken if --norm is not set')
    add(
        '--logit-init',
        choices=['uniform', 'in', 'ln', 'bn'],
        default='uniform',
        help='where ratios start that the checkpoint does not have; bn keeps what a batch norm '
        'network computes (default: uniform, as published)',
    )
    add('--overwrite', action='store_true', help='replace the output if it is there')
    return parser


def _convert(args: argparse.Namespace) -> None:
    _check_output(args)
    cfg = None if args.config is None else load_config(args.config)
    source = read(args.source)
    if cfg is None:
        conversion = convert(source, args.to, args.norm, args.logit_init)
    else:
        conversion = _convert_for(cfg, source, args)
    _save(conversion, source, args.output)
    print(conversion.report)
    print(f'{len(conversion.state)} tensors written to {args.output}')


def _convert_for(cfg, source: Source, args: argparse.Namespace) -> Conversion:
    """Convert for the model of a config, and check that it fits."""
    if cfg.get('model') is None:
        raise UserError(f'--config {args.config}: it has no model')
    model = build_checked_model(cfg)
    if args.to == 'released' or getattr(model, 'backbone', None) is None:
        raise UserError(f'--config {args.config}: its model.backbone is what a conversion is for; '
                        'drop --config, or name a config with one')  # fmt: skip
    to = args.to or default_layout(source.state)
    if args.to is None and to == 'backbone' and package_of(cfg) == 'mmpretrain':
        to = 'classifier'
    norms = norms_in(model if to == 'model' else model.backbone)
    conversion = convert(source, to, args.norm, args.logit_init, norms)
    whose = f'model.backbone of {args.config}'
    check_network(conversion.network, model.backbone, source.path, whose)
    if to == 'classifier':
        conversion.report.unused += check_fit(conversion.state, model, conversion.report, whose)
        return conversion
    # Heads may differ, in their number of classes for one: load_from takes what fits of them.
    state = conversion.state
    if to == 'model':
        below = 'backbone.'
        state = {n[len(below) :]: value for n, value in state.items() if n.startswith(below)}
    conversion.report.unused += check_fit(state, model.backbone, conversion.report, whose)
    return conversion


def _check_output(args: argparse.Namespace) -> None:
    output = args.output
    if osp.isdir(output):
        raise UserError(f'output: {output} is a folder; name a file')
    if not osp.exists(output):
        return
    if osp.exists(args.source) and osp.samefile(args.source, output):
        raise UserError(f'output: {output} is the source; name another file')
    if not args.overwrite:
        raise UserError(f'output: {output} exists; name another file, or add --overwrite')


def _save(conversion: Conversion, source: Source, output: str) -> None:
    checkpoint = {'state_dict': conversion.state, 'meta': source.meta}
    if conversion.kept:
        checkpoint[KEPT] = conversion.kept
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write(output, buffer.getvalue(), 'output')
