"""The demo: pretrain, train and evaluate Faster R-CNN+FPN with BN and with SN on the digits."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

from normplug.data.build import DigitsSettings, build_digits
from normplug.errors import UserError

from .figures import plot_detections, plot_losses, plot_ratios
from .output import png, write_all
from .provenance import provenance
from .ratios import read_ratios
from .runs import Run, read_run
from .summary import SeedSummary
from .tables import facts, markdown

__all__ = ['COCO_COLUMNS', 'coco_row', 'run_demo']

COCO_COLUMNS = ('norm', 'AP', 'AP50', 'AP75', 'training time (s)', 'peak memory (MB)')

NORMS = ('bn', 'sn')
DATA = Path('work_dirs/data/digits')
OUT = Path('work_dirs/demo')
PRETRAIN = 'resnet18-w32_{norm}_digits'
DETECTOR = 'faster-rcnn_r18-w32_fpn_{norm}_digits'


def run_demo(seeds: int = 1) -> None:
    """Do all of it from the repository's root, then say where everything is.

    Args:
        seeds: how many times all of it is trained, pretraining too: seeds 0, 1, ….

    Raises:
        UserError: a step failed; its own message stands above.
    """
    started = time.time()
    print(f'[1/4] data: {DATA}', flush=True)
    build_digits(DATA, ('coco', 'classification'), DigitsSettings())
    runs = []
    for seed in range(seeds):
        which = f', seed {seed}' if seeds > 1 else ''
        print(f'[2/4] pretraining, a digit classifier for each norm{which}', flush=True)
        _train_all(PRETRAIN, 'configs/pretrain', seed)
        print(f'[3/4] Faster R-CNN+FPN, 2 images a batch{which}', flush=True)
        _train_all(DETECTOR, 'configs/faster_rcnn', seed)
        runs += [read_run(_work_dir(DETECTOR, norm, seed), norm.upper()) for norm in NORMS]
    print(f'[4/4] report: {OUT}', flush=True)
    text = _report(runs)
    print(f'\n{text}\nAll of it took {(time.time() - started) / 60:.1f} minutes.\n{_NEXT}')


_NEXT = f"""
In {OUT}: results.md and results.json, detections.png, losses.png, sn_ratios.png.
Logs and checkpoints: work_dirs/{DETECTOR.format(norm='sn')} and its neighbours.
Next: another row, python tools/train.py configs/faster_rcnn/{DETECTOR.format(norm='gn')}.py
(its backbone first: configs/pretrain/{PRETRAIN.format(norm='gn')}.py); or your own config with
custom_imports = dict(imports=['normplug']) and norm_cfg=dict(type='SN').
"""


def _work_dir(name: str, norm: str, seed: int) -> Path:
    """Of seed 0, that of the config."""
    return Path('work_dirs') / (name.format(norm=norm) + (f'_seed{seed}' if seed else ''))


def _arguments(name: str, norm: str, seed: int) -> list[str]:
    """What another seed than 0, which the configs have, adds to the command of a training."""
    if seed == 0:
        return []
    options = ['--work-dir', str(_work_dir(name, norm, seed))]
    options += ['--cfg-options', f'randomness.seed={seed}']
    if name == DETECTOR:
        start = Run('', _work_dir(PRETRAIN, norm, seed)).checkpoint
        options.append(f'model.backbone.init_cfg.checkpoint={start}')
    return options


def _train_all(name: str, folder: str, seed: int) -> None:
    """Train each norm's config at the same time, with an equal share of the cores.

    Small models gain little from a second thread, and side by side the times are comparable.
    """
    env = {**os.environ, 'OMP_NUM_THREADS': str(_threads()), 'PYTHONUNBUFFERED': '1'}
    processes = {}
    for norm in NORMS:
        config = f'{folder}/{name.format(norm=norm)}.py'
        command = ['tools/train.py', config, *_arguments(name, norm, seed)]
        print(f'  python {" ".join(command)}', flush=True)
        processes[norm] = subprocess.Popen(
            [sys.executable, *command],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    tails = {norm: deque(maxlen=30) for norm in NORMS}
    followers = [
        threading.Thread(target=_follow, args=(norm, process, tails[norm], processes))
        for norm, process in processes.items()
    ]
    try:
        for follower in followers:
            follower.start()
        for follower in followers:
            follower.join()
    except KeyboardInterrupt:
        for process in processes.values():
            process.terminate()
        raise
    # The one that failed by itself, not by our signal, has something to say.
    for norm, process in sorted(processes.items(), key=lambda item: item[1].wait() < 0):
        if process.returncode:
            print(''.join(tails[norm]), file=sys.stderr)
            raise UserError(f'training {name.format(norm=norm)} failed: see the lines above')


def _threads() -> int:
    return max(1, (os.cpu_count() or 1) // len(NORMS))


def _follow(norm: str, process: subprocess.Popen, tail: deque, all_of_them: dict) -> None:
    """Show the progress lines of one training as they come; if it fails, end all."""
    for line in process.stdout:
        tail.append(line)
        if 'Epoch(' in line:
            _, _, progress = line.partition('INFO - ')
            print(f'  {norm.upper()}: {progress[:150].rstrip()}', flush=True)
    if process.wait():
        for other in all_of_them.values():
            other.terminate()


def _report(runs: Sequence[Run]) -> str:
    """Write the files of `OUT` and return the table and what it shows."""
    rows = [coco_row(run) for run in runs]
    options = [] if len(runs) == len(NORMS) else [f'SEEDS={len(runs) // len(NORMS)}']
    source = provenance('make', ['demo', *options], 'cuda' if torch.cuda.is_available() else 'cpu')
    source['threads'] = _threads()  # of a training
    text = f'{markdown(COCO_COLUMNS, _over_seeds(rows))}\n{_difference(rows)}\n'
    files = {
        'results.md': f'{text}\n{facts(source)}'.encode(),
        'results.json': (json.dumps({'rows': rows, **source}, indent=2) + '\n').encode(),
        'losses.png': png(plot_losses(runs[: len(NORMS)])),
        'sn_ratios.png': png(plot_ratios(read_ratios(runs[len(NORMS) - 1].checkpoint))),
    }
    write_all(OUT, files)
    shown = runs[len(NORMS) - 1]
    detections = plot_detections(_detections(shown), ('ground truth', shown.name))
    write_all(OUT, {'detections.png': png(detections)})
    return text


def _over_seeds(rows: Sequence[dict]) -> list[dict]:
    """A row for each norm: mean and standard deviation of the metrics, the rest at its highest."""
    table = []
    for norm in dict.fromkeys(row['norm'] for row in rows):
        own = [row for row in rows if row['norm'] == norm]
        whole = {}
        for name in COCO_COLUMNS[4:]:
            known = [row[name] for row in own if row[name] is not None]
            whole[name] = max(known, default=None)
        for name in COCO_COLUMNS[1:4]:
            whole[name] = SeedSummary(tuple(row[name] for row in own), len(own))
        table.append({'norm': norm, **whole})
    return table


def _difference(rows: Sequence[dict]) -> str:
    """How far SN and BN are apart, and what SN gains by."""
    by_norm = {norm: [row['AP'] for row in rows if row['norm'] == norm] for norm in ('BN', 'SN')}
    gain = mean(by_norm['SN']) - mean(by_norm['BN'])
    if gain <= 0:
        return f'SN is {-gain:.1f} AP below BN.'
    return (
        f'SN is {gain:.1f} AP above BN. Every picture has its own light, and SN can normalize each '
        'by its own\nstatistics, where BN takes those of the batch, and in evaluation one average '
        'of all pictures.'
    )


def coco_row(run: Run) -> dict[str, str | float | int | None]:
    """The last evaluation of a detector by COCO's metric (%), and what its training took."""
    metrics = run.val[-1]
    return {
        'norm': run.name,
        'AP': round(100 * metrics['coco/bbox_mAP'], 1),
        'AP50': round(100 * metrics['coco/bbox_mAP_50'], 1),
        'AP75': round(100 * metrics['coco/bbox_mAP_75'], 1),
        'training time (s)': round(run.train_seconds),
        'peak memory (MB)': run.peak_memory,
    }


def _detections(run: Run, pictures: int = 8, threshold: float = 0.5) -> list:
    """The first pictures of the validation split with their truth and what ``run`` detects."""
    import mmcv
    from mmdet.apis import inference_detector, init_detector
    from pycocotools.coco import COCO

    folder = DATA / 'coco'
    coco = COCO(folder / 'annotations/instances_val.json')
    config = next(run.work_dir.glob('*.py'))
    model = init_detector(str(config), str(run.checkpoint), device=_device())
    classes = model.dataset_meta['classes']
    rows = []
    for info in coco.loadImgs(sorted(coco.imgs)[:pictures]):
        path = folder / 'val' / info['file_name']
        truth = []
        for annotation in coco.imgToAnns[info['id']]:
            x, y, w, h = annotation['bbox']
            name = coco.cats[annotation['category_id']]['name']
            truth.append(((x, y, x + w, y + h), name))
        found = inference_detector(model, str(path)).pred_instances.cpu().numpy()
        found = found[found.scores > threshold]
        boxes = [
            (tuple(box), f'{classes[label]} {score:.2f}')
            for box, label, score in zip(found.bboxes, found.labels, found.scores, strict=True)
        ]
        rows.append((mmcv.imread(str(path), channel_order='rgb'), truth, boxes))
    return rows


def _device() -> str:
    return 'cuda:0' if torch.cuda.is_available() else 'cpu'
