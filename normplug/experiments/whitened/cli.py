"""The command line of ``tools/whitened_networks.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import torch

from normplug.errors import exit_code
from normplug.reports.output import png, write_all
from normplug.reports.provenance import provenance
from normplug.reports.summary import SeedSummary
from normplug.reports.tables import facts, markdown, to_csv

from .fisher import blocks, whiten_now
from .task import KINDS, NETWORKS, Run, Settings, data, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ['main_whitened_networks']

RATES = (0.01, 0.03, 0.1, 0.3)
_LAST = 50  # iterations whose mean loss says how far a training came


def main_whitened_networks(
    argv: Sequence[str] | None = None, prog: str = 'tools/whitened_networks.py'
) -> int:
    """Return the exit code: 0, or 2 after an error by the user."""
    parser = argparse.ArgumentParser(prog=prog, description=main_whitened_networks.__doc__)
    parser.description = (
        'Train small classifiers of digits with plain, batch-normalized and whitened layers, each '
        'at its own best learning rate; write training curves and Fisher blocks.'
    )
    parser.add_argument('--seeds', type=int, default=3, help='of each figure (default: 3)')
    parser.add_argument('--first-seed', type=int, default=0)
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS), metavar='KIND')
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS))
    for name, value in vars(Settings()).items():
        parser.add_argument(f'--{name}', type=type(value), default=value)
    parser.add_argument('--rates', type=float, nargs='+', default=list(RATES))
    parser.add_argument('--out', type=Path, default=Path('work_dirs/whitened_networks'))
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    return exit_code(lambda: _run(args, prog, argv), prog)


def _run(args: argparse.Namespace, prog: str, argv: Sequence[str]) -> None:
    torch.set_num_threads(1)
    settings = replace(Settings(), **{name: getattr(args, name) for name in vars(Settings())})
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    curves: dict[str, dict[str, Run]] = {}
    trainings, table, fisher = [], [], []
    for form in args.networks:
        curves[form] = {}
        for kind in args.kinds:
            runs = {}
            for rate in args.rates:
                for seed in seeds:
                    model, run = train(kind, form, rate, seed, settings)
                    runs[rate, seed] = run
                    trainings.append(_row(form, kind, rate, seed, run))
            best = min(args.rates, key=lambda r: mean(_reached(runs[r, s]) for s in seeds))
            of_best = [runs[best, seed] for seed in seeds]
            curves[form][kind] = of_best[0]
            table.append(_summary(form, kind, best, of_best))
            print(markdown(list(table[-1]), [table[-1]]).splitlines()[-1], flush=True)
            for seed in seeds:
                model, _ = train(kind, form, best, seed, settings)
                fisher += _fisher(form, kind, seed, model)
    source = provenance(prog, argv, 'cpu')
    report = [markdown(list(table[0]), table), markdown(list(_means(fisher)[0]), _means(fisher))]
    files = {
        'trainings.csv': to_csv(trainings, source),
        'fisher.csv': to_csv(fisher, source),
        'report.md': '\n'.join([*report, facts(source)]).encode(),
        'curves.png': png(_figure(curves)),
    }
    for path in write_all(args.out, files):
        print(path)


def _reached(run: Run) -> float:
    """Mean loss of the last iterations; that of guessing, at least, if it diverged."""
    last = run.losses[-_LAST:]
    return mean(last) if run.error < 100 else max(10.0, mean(run.losses[:1]))


def _row(form: str, kind: str, rate: float, seed: int, run: Run) -> dict:
    return {
        'network': form,
        'kind': kind,
        'rate': rate,
        'seed': seed,
        'loss': _reached(run),
        'error': run.error,
        'seconds': run.seconds[-1],
        'whitening': run.whitening,
    }


def _summary(form: str, kind: str, rate: float, runs: Sequence[Run]) -> dict:
    seeds = len(runs)
    whitening = mean(run.whitening for run in runs) / mean(run.seconds[-1] for run in runs)
    return {
        'network': form,
        'kind': kind,
        'learning rate': rate,
        'iterations to a loss of 0.1': str(SeedSummary(tuple(map(_until, runs)), seeds)),
        'last loss x 1000': str(SeedSummary(tuple(1000 * _reached(r) for r in runs), seeds)),
        'error (%)': str(SeedSummary(tuple(run.error for run in runs), seeds)),
        'seconds': str(SeedSummary(tuple(run.seconds[-1] for run in runs), seeds)),
        'of these, whitening': f'{whitening:.0%}',
    }


def _until(run: Run, loss: float = 0.1) -> float:
    """The first iteration after which the mean loss of 20 is below; all if none is."""
    for i in range(20, len(run.losses)):
        if mean(run.losses[i - 20 : i]) < loss:
            return float(i)
    return float(len(run.losses))


def _fisher(form: str, kind: str, seed: int, model: torch.nn.Module) -> list[dict]:
    x, y, _, _ = data()
    model.eval()
    rows = []
    whiten_now(model, x, y)
    for when, canonical in (('plain', True), ('whitened', False)):
        torch.manual_seed(seed)
        for number, block in enumerate(blocks(model, x, canonical)):
            own = dict(network=form, kind=kind, seed=seed, coordinates=when, layer=number)
            rows.append(own | dict(condition=block.condition, distance=block.distance))
    return [row for row in rows if row['coordinates'] == 'plain' or 'NN' in kind or 'Eigen' in kind]


def _means(fisher: Sequence[dict]) -> list[dict]:
    """Over seeds; a row for each kind and layer, plain and whitened coordinates side by side."""
    keys = dict.fromkeys((r['network'], r['kind'], r['layer']) for r in fisher)
    rows = []
    for network, kind, layer in keys:
        row = {'network': network, 'kind': kind, 'layer': str(layer)}
        for quantity in ('condition', 'distance'):
            for when in ('plain', 'whitened'):
                values = [
                    r[quantity]
                    for r in fisher
                    if (r['network'], r['kind'], r['layer'], r['coordinates'])
                    == (network, kind, layer, when)
                ]
                row[f'{quantity}, {when}'] = f'{mean(values):.3g}' if values else None
        rows.append(row)
    return rows


def _figure(curves: dict[str, dict[str, Run]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6 * len(curves)), layout='constrained')
    grid = figure.subplots(len(curves), 2, squeeze=False)
    for row, (form, runs) in zip(grid, curves.items(), strict=True):
        for kind, run in runs.items():
            smooth = [mean(run.losses[max(0, i - 19) : i + 1]) for i in range(len(run.losses))]
            for axes, places in zip(row, (range(len(smooth)), run.seconds), strict=True):
                axes.plot(places, smooth, label=kind)
        for axes, label in zip(row, ('iteration', 'seconds'), strict=True):
            axes.set(xlabel=label, ylabel='training loss (mean of 20)', yscale='log', title=form)
    grid[0][0].legend(fontsize=8)
    return figure
