"""What a table needs before it starts: data and weights, and where each can be had."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch.hub import get_dir

from normplug.errors import UserError
from normplug.preflight.data.paths import missing_paths

from .jobs import Job

__all__ = ['check_needs']

# A part of a path → where it can be had. docs/real_data.md says how each is laid out.
_SOURCES = {
    'data/real/': 'python tools/fetch_real.py',
    'coco': 'COCO 2017: train2017, val2017 and annotations, from cocodataset.org',
    'ADEChallengeData2016': 'ADE20K (SceneParsing), from sceneparsing.csail.mit.edu',
    'cityscapes': 'Cityscapes: leftImg8bit and gtFine, from www.cityscapes-dataset.com '
    '(registration), with the maps of train ids (cityscapesscripts)',
    'gta': 'GTA5 ("Playing for Data"), from download.visinf.tu-darmstadt.de/data/from_games',
    'kinetics400': 'Kinetics-400, from github.com/cvdfoundation/kinetics-dataset',
    'imagenet': 'ImageNet-1k (ILSVRC 2012), from www.image-net.org (registration)',
    'checkpoints/resnet50v1_sn': 'ImageNet models of SN that '
    'github.com/switchablenorms/Switchable-Normalization and SwitchNorm_Detection name, (8,2) and '
    '(8,1); any of the zoo will do by --cfg-options',
    'ssn': 'model zoo in the README of github.com/switchablenorms/Sparse_SwitchNorm',
    'ibn': 'releases of github.com/XingangPan/IBN-Net',
}


def check_needs(jobs: Iterable[Job], download: bool = True) -> None:
    """Check that data and weights are there, for all jobs at once.

    Args:
        jobs: what will run.
        download: load the weights that mmengine downloads once, so that they lie in its cache
            before anything starts.

    Raises:
        UserError: with a line for each path that is missing, and where it can be had, and for each
            download that failed.
    """
    jobs = tuple(jobs)
    made = {str(job.folder) for job in jobs}
    missing: dict[str, str] = {}
    remote: dict[str, str] = {}
    # One of each row: seeds do not differ in what they need.
    for job in {(job.of_row, job.config, job.trains): job for job in jobs}.values():
        phases = ('train', 'val') if job.trains else ('test',)
        # What a test starts from is its checkpoint.
        weights = list(_weights(job.cfg)) if job.trains else []
        absent = [
            (key, path)
            for key, path in weights
            if not ('://' in path or Path(path).expanduser().exists())
        ]
        for key, path in [*missing_paths(job.cfg, phases), *absent]:
            if str(Path(path).parent) not in made:
                missing.setdefault(os.path.normpath(path), f'{job.config}: {key}')
        remote |= {path: f'{job.config}: {key}' for key, path in weights if '://' in path}
    lines = [f'  {path} ({asked_by}){_source(path)}' for path, asked_by in missing.items()]
    if download:
        failed = {path: why for path in remote if (why := _download(path))}
        lines += [f'  {path} ({remote[path]}): {why}' for path, why in failed.items()]
    if not lines:
        return
    raise UserError(
        '\n'.join(
            [
                f'{len(lines)} paths are missing, and nothing was started:',
                *lines,
                f'Paths start at {os.getcwd()}; links will do. docs/real_data.md shows the '
                'layouts, docs/checkpoints.md the weights. --cfg-options KEY=VALUE names '
                'another place, --rows chooses rows that need less.',
            ]
        )
    )


def _source(path: str) -> str:
    known = (text for part, text in _SOURCES.items() if part in path)
    text = next(known, None)
    return f': {text}' if text else ''


def _weights(cfg: Config) -> Iterator[tuple[str, str]]:
    """(Key, path) of what a training starts from."""
    for key, path in [*_checkpoints(cfg.model, 'model'), ('load_from', cfg.get('load_from'))]:
        if path:
            yield key, path


def _download(path: str) -> str | None:
    """Have mmengine load weights, from its cache if it can; why it cannot."""
    try:
        CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except (OSError, LookupError, RuntimeError, ValueError) as error:
        return (
            f'cannot be downloaded ({error}); a copy in {get_dir()}/checkpoints will do, under the '
            'name that mmengine says above'
        )
    return None


def _checkpoints(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == 'checkpoint' and isinstance(value, str):
                yield f'{key}.{name}', value
            yield from _checkpoints(value, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _checkpoints(value, f'{key}.{index}')
