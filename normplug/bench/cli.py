"""The command line of tools/benchmark.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from normplug.errors import UserError, exit_code
from normplug.ops.backend import BACKENDS, get_backend, set_backend
from normplug.ops.compiled import CompilationError
from normplug.register import NORMS
from normplug.reports.output import write_all
from normplug.reports.provenance import provenance

from . import report
from .cases import DTYPES, LAYOUTS, QUICK, R50_FPN, Case, parse_shape
from .compilation import empty_cache
from .contenders import NAIVE
from .layers import measure_layers
from .models import measure_model
from .networks import NETWORKS, Network
from .random_sizes import count_compilations

__all__ = ['main_benchmark']

_OURS = ('SN', 'SyncSN', 'SSN', 'IBN')


def main_benchmark(argv: Sequence[str] | None = None, prog: str = 'tools/benchmark.py') -> int:
    """Measure by the command line, write the report and return the exit code.

    It is 0; 1 if a layer disagrees with the reference or a network diverges, and then nothing is
    written; 2 after a user error.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(prog).parse_args(argv)
    backend, threads = get_backend(), torch.get_num_threads()
    try:
        return exit_code(lambda: _benchmark(args, argv, prog), prog)
    finally:
        set_backend(backend)
        torch.set_num_threads(threads)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Measure the normalizers beside nn.BatchNorm2d, in turns within one run: '
        'layers (the default), whole networks (--model), or compilations (--random-sizes). '
        'Before a layer is measured, its outputs and gradients are compared with the reference in '
        'float64; where they differ, the exit code is 1 and nothing is written.',
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--quick', action='store_true', help='five of the shapes of R50-FPN')
    what.add_argument(
        '--shapes',
        nargs='+',
        metavar='N,C,H,W',
        help='inputs of the layers; default: those of R50-FPN at 2 images of 800x1333, tiny maps',
    )
    what.add_argument('--model', choices=NETWORKS, help='training steps of this network')
    what.add_argument(
        '--random-sizes', type=int, metavar='COUNT', help='compilations over random image sizes'
    )
    parser.add_argument(
        '--norms',
        nargs='+',
        choices=(*NORMS, *NAIVE),
        metavar='NORM',
        help=f'of {", ".join((*NORMS, *NAIVE))}; naive is SN as its paper writes it (default: '
        f'{" ".join(_OURS)} naive; with --model: SN); BN is always measured',
    )
    parser.add_argument(
        '--backend',
        nargs='+',
        choices=BACKENDS,
        default=[get_backend()],
        help=f'of our norms, several side by side (default: {get_backend()})',
    )
    parser.add_argument(
        '--dtype', nargs='+', choices=DTYPES, default=['float32'], help='(default: float32)'
    )
    parser.add_argument(
        '--layout', nargs='+', choices=LAYOUTS, default=['contiguous'], help='(default: contiguous)'
    )
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is one')
    parser.add_argument('--threads', type=int, help="of the CPU (default: torch's own choice)")
    parser.add_argument(
        '--seconds',
        type=float,
        default=3.0,
        help='of measuring each input, or network; at least 5 rounds (default: 3)',
    )
    parser.add_argument(
        '--image-size',
        nargs=2,
        type=int,
        default=(800, 1333),
        metavar=('H', 'W'),
        help='of --model (default: 800 1333)',
    )
    parser.add_argument('--images', type=int, default=2, help='of a batch of --model (default: 2)')
    parser.add_argument(
        '--keep-cache',
        action='store_true',
        help="compile into Inductor's own cache, as trainings do, not into an empty one",
    )
    parser.add_argument(
        '--out',
        default='work_dirs/benchmark',
        metavar='DIR',
        help='for CSV, Markdown and chart, which replace those of an earlier run (default: '
        '%(default)s)',
    )
    return parser


def _benchmark(args: argparse.Namespace, argv: Sequence[str], prog: str) -> None:
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    _check(args, device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    with nullcontext() if args.keep_cache else empty_cache():
        try:
            name, rows = _rows(args, device)
        except CompilationError as error:
            raise UserError(f'--backend compiled: {error}') from error
    files = report.files(name, rows, provenance(prog, argv, device))
    print(files[f'{name}.md'].decode())
    for path in write_all(Path(args.out), files):
        print(path)


def _check(args: argparse.Namespace, device: str) -> None:
    """Raise UserError, naming the option, for bad values that argparse accepts."""
    for option in ('threads', 'images', 'random_sizes'):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f'--{option.replace("_", "-")} must be at least 1, got {value}')
    if not args.seconds >= 0:
        raise UserError(f'--seconds must not be negative, got {args.seconds}')
    if min(args.image_size) < 32:
        raise UserError(f'--image-size: at least 32 pixels a side, got {args.image_size}')
    if device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch finds no GPU')
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise UserError(f'--out: {args.out} is a file; name a folder')
    halves = [dtype for dtype in args.dtype if dtype != 'float32']
    if args.model and halves and device == 'cpu':
        raise UserError(f'--dtype {halves[0]}: with --model it needs --device cuda (autocast)')


def _rows(args: argparse.Namespace, device: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of the files and the rows of what was asked for."""
    forms = [(dtype, layout) for dtype in args.dtype for layout in args.layout]
    if args.model:
        network = Network(args.model, args.images, *args.image_size)
        options = (args.norms or ['SN'], args.backend)
        rest = (device, args.seconds, _say)
        rows = [row for form in forms for row in measure_model(network, *options, *form, *rest)]
        return args.model, rows
    norms = args.norms or [*_OURS, 'naive']
    if args.random_sizes:
        ours = [name for name in norms if name in NORMS]
        if not ours:
            raise UserError('--norms: none of them is ever compiled')
        options = (args.random_sizes, ours, args.backend)
        return 'random_sizes', [
            row for form in forms for row in count_compilations(*options, *form, device, _say)
        ]
    shapes = {name: R50_FPN[name] for name in (QUICK if args.quick else R50_FPN)}
    if args.shapes:
        shapes = {text: parse_shape(text) for text in args.shapes}
    cases = [
        Case('' if args.shapes else name, shape, *form, device)
        for form in forms
        for name, shape in shapes.items()
    ]
    return 'layers', measure_layers(cases, norms, args.backend, args.seconds, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
