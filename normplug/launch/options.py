"""Change the config as command-line options say. Nothing here leaves a file on the disk."""

from __future__ import annotations

import inspect
import os.path as osp
from os import rmdir
from pathlib import Path
from tempfile import mkdtemp

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import HOOKS

from normplug.errors import UserError
from normplug.files import check_writable
from normplug.preflight.config import iter_datasets
from normplug.preflight.config_types import built_by, name_of, package_of, scope_of

__all__ = [
    'enable_amp',
    'enable_auto_scale_lr',
    'enable_tta',
    'save_pictures',
    'save_predictions',
    'set_work_dir',
]


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Set ``cfg.work_dir``: the option, else the config's own, else work_dirs/<config's name>.

    Raises:
        UserError: it is a file, or cannot be written to.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(cfg.filename))[0])
    if osp.isfile(cfg.work_dir):
        raise UserError(f'--work-dir: {cfg.work_dir} is a file; name a folder')
    try:
        check_writable(cfg.work_dir)
    except OSError as error:
        raise UserError(
            f'--work-dir: nothing can be written to {cfg.work_dir}: {error.strerror}; name another '
            'folder'
        ) from error


def enable_amp(cfg: Config) -> None:
    """Train in mixed precision.

    Raises:
        UserError: there is no GPU (mmengine's AmpOptimWrapper refuses to work without one), or the
            config's optimizer wrapper is neither OptimWrapper nor AmpOptimWrapper.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    kind = name_of(wrapper.get('type', 'OptimWrapper'))
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(
            f'--amp needs optim_wrapper.type to be OptimWrapper or AmpOptimWrapper, not {kind}; '
            'drop --amp'
        )
    if get_device() == 'cpu':
        raise UserError(
            '--amp needs a GPU: mmengine has no AmpOptimWrapper for the CPU; drop --amp'
        )
    wrapper['type'] = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the real batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        UserError: the config does not have that key.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size. Set it to the batch '
            "size (all GPUs together) that the config's learning rate was chosen for, e.g. "
            'auto_scale_lr = dict(base_batch_size=16)'
        )
    cfg.auto_scale_lr.enable = True


def enable_tta(cfg: Config) -> None:
    """Wrap the model in ``tta_model`` and test it on ``tta_pipeline``.

    Raises:
        UserError: the config lacks one of the two.
    """
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UserError(
                f'--tta: the config has no {key}. It needs tta_model and tta_pipeline; '
                'the configs of mmdet, mmseg and mmpretrain with test-time augmentation show how'
            )
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)
    for _, dataset in iter_datasets(cfg.test_dataloader, 'test_dataloader'):
        dataset.pipeline = cfg.tta_pipeline


def save_pictures(cfg: Config, folder: str) -> None:
    """Draw the prediction for every test image into ``folder``, in all packages of images.

    Raises:
        UserError: the config has no visualization hook, or ``folder`` cannot be written to, or the
            config is mmaction2's.
    """
    if package_of(cfg) == 'mmaction':
        raise UserError(
            '--show-dir: the VisualizationHook of mmaction2 1.2 fails on the clips that its own '
            'pipelines pack; save the predictions by --out FILE.pkl'
        )
    _check_place('--show-dir', folder, is_file=False)
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError(
            '--show-dir: the config has no default_hooks.visualization. Add, for detection, '
            "visualization=dict(type='DetVisualizationHook'); for segmentation, "
            "dict(type='SegVisualizationHook'); for classification, dict(type='VisualizationHook')"
        )
    kind = built_by(hook, HOOKS, scope_of(cfg))
    if kind is None:
        return  # the check of types names it
    accepted = inspect.signature(kind).parameters
    # An absolute path, because mmdet would put a relative one below work_dir/<timestamp>.
    folder = osp.abspath(folder)
    wanted = {'draw': True, 'enable': True, 'interval': 1}
    wanted |= {'test_out_dir': folder, 'out_dir': folder}
    hook.update({name: value for name, value in wanted.items() if name in accepted})
    if not accepted.keys() & {'test_out_dir', 'out_dir'}:
        if not cfg.get('visualizer'):
            raise UserError('--show-dir: the config has no visualizer, which saves the pictures')
        cfg.visualizer.save_dir = folder


def save_predictions(cfg: Config, out: str) -> None:
    """Save the predictions of the test set.

    If the name ends in .pkl or .pickle, one file gets all predictions. Any other name is a folder,
    for segmentation only, which gets a PNG of labels for each image, as in mmseg.

    Raises:
        UserError: ``out`` is a folder, but the config's metrics do not write PNGs; or nothing can
            be written there.
    """
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    _check_place('--out', out, is_file=out.endswith(('.pkl', '.pickle')))
    if out.endswith(('.pkl', '.pickle')):
        kind = 'mmdet.DumpDetResults' if package_of(cfg) == 'mmdet' else 'mmengine.DumpResults'
        cfg.test_evaluator = [*metrics, {'type': kind, 'out_file_path': out}]
        return
    writers = [metric for metric in metrics if name_of(metric.get('type')).endswith('IoUMetric')]
    if package_of(cfg) != 'mmseg' or not writers:
        raise UserError(f'--out {out}: the name of the file of predictions must end in .pkl')
    for metric in writers:
        metric.output_dir = out


def _check_place(option: str, path: str, is_file: bool) -> None:
    """Raise a UserError unless a file, or else files in a folder, can be written at ``path``."""
    if not path:
        raise UserError(f'{option} is empty; name a {"file" if is_file else "file or folder"}')
    if is_file and osp.isdir(path):
        raise UserError(f'{option} {path}: is a folder; name a file')
    folder = Path(path).absolute()
    folder = folder.parent if is_file else folder
    try:
        check_writable(folder)
        # Root is denied nothing, yet in e.g. /proc nobody can make a file: only trying tells.
        rmdir(mkdtemp(dir=next(place for place in (folder, *folder.parents) if place.exists())))
    except OSError as error:
        raise UserError(
            f'{option} {path}: nothing can be written there: {error.strerror}; name another place'
        ) from error
