"""Build a trained model, its inputs and its outputs, in one way for all packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from normplug.errors import UserError
from normplug.preflight import checkpoint as ckpt
from normplug.preflight.config_types import PACKAGES, package_of, scope_of
from normplug.preflight.model import build_checked_model

__all__ = ['Batch', 'largest_difference', 'load_model', 'random_batch', 'run', 'scores_of_clips']


@dataclass
class Batch:
    """Inputs as the network takes them after the data preprocessor, with samples.

    (N, C, H, W); clips are (N, C, T, H, W).
    """

    inputs: Tensor
    samples: list


def load_model(cfg: Config, path: str) -> tuple[nn.Module, dict]:
    """Build the model of ``cfg`` with the weights at ``path``, in evaluation mode.

    Also return what the checkpoint says about its training data, such as names of classes.

    Raises:
        UserError: the config is of no package that is known, its model cannot be built or is no 3D
            recognizer of mmaction2, or the checkpoint is missing, broken, of another model or has
            NaN in it.
    """
    if cfg.get('model') is None:
        raise UserError('the config has no model')
    if package_of(cfg) not in PACKAGES:
        raise UserError(
            f'default_scope = {scope_of(cfg)!r}, and model.type is of none of '
            f'{", ".join(PACKAGES)}: this tool knows their models'
        )
    checkpoint = ckpt.read_checkpoint(path, 'checkpoint')
    model = build_checked_model(cfg)
    if package_of(cfg) == 'mmaction' and not _takes_clips(model):
        raise UserError(
            f"model.type = {cfg.model.get('type')!r}: of mmaction2's models, this tool knows "
            'Recognizer3D'
        )
    ckpt.check_strict(model, checkpoint, path, 'checkpoint')  # which loads it
    return model.eval(), (checkpoint.get('meta') or {}).get('dataset_meta', {})


def _takes_clips(model: nn.Module) -> bool:
    from mmaction.models import Recognizer3D

    return isinstance(model, Recognizer3D)


def random_batch(cfg: Config, shape: tuple[int, ...], seed: int = 0) -> Batch:
    """Return inputs of standard normal values, similar to normalized images."""
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if package_of(cfg) != 'mmdet':
        return Batch(inputs, [])
    from mmdet.structures import DetDataSample

    size = shape[2:]
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
    meta['scale_factor'] = (1.0, 1.0)
    return Batch(inputs, [DetDataSample(metainfo=meta) for _ in range(shape[0])])


@torch.no_grad()
def run(cfg: Config, model: nn.Module, batch: Batch, proposals: list | None = None) -> dict:
    """Run the network without its post-processing, which chooses by thresholds.

    Args:
        cfg: the model's config.
        model: in evaluation mode.
        batch: what to run it on.
        proposals: the boxes that the second stage of a detector sees; its own if None.

    Returns:
        ``outputs``, any nesting of tensors; ``proposals``, those used, or None.
    """
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        if package_of(cfg) == 'mmseg':
            size = tuple(batch.inputs.shape[2:])
            metas = [dict(img_shape=size)] * len(batch.inputs)
            return dict(outputs=model.encode_decode(batch.inputs, metas), proposals=None)
        if package_of(cfg) == 'mmpretrain':
            return dict(outputs=model(batch.inputs, mode='tensor'), proposals=None)
        if package_of(cfg) == 'mmaction':
            return dict(outputs=scores_of_clips(model, batch.inputs), proposals=None)
        return _run_detector(model, batch, proposals)


def scores_of_clips(model: nn.Module, clips: Tensor) -> Tensor:
    """Return the logits (N, classes) of a 3D recognizer for (N, C, T, H, W)."""
    return model(clips.unsqueeze(1), mode='tensor', stage='head')


def _run_detector(model: nn.Module, batch: Batch, proposals: list | None) -> dict:
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.detectors import TwoStageDetector

    features = model.extract_feat(batch.inputs)
    if not (isinstance(model, TwoStageDetector) and isinstance(model.rpn_head, BaseDenseHead)):
        outputs = model(batch.inputs, batch.samples, mode='tensor')
        return dict(outputs=(features, outputs), proposals=None)
    # Proposals depend on thresholds: two runs are compared with the same proposals.
    if proposals is None:
        proposals = model.rpn_head.predict(features, batch.samples, rescale=False)
    outputs = (
        features,
        model.rpn_head(features),
        model.roi_head.forward(features, proposals, batch.samples),
    )
    return dict(outputs=outputs, proposals=proposals)


def largest_difference(got: Any, want: Any) -> float:
    """Return the largest |got − want| / max |want| of all tensors; infinite if one has NaN."""
    pairs = zip(_floats(got), _floats(want), strict=True)
    return max((_difference(a, b) for a, b in pairs), default=0.0)


def _difference(got: Tensor, want: Tensor) -> float:
    if got.shape != want.shape:
        return float('inf')
    if got.numel() == 0:
        return 0.0
    difference = ((got - want).abs().max() / want.abs().max().clamp(min=1e-12)).item()
    return difference if difference == difference else float('inf')


def _floats(outputs: Any) -> list[Tensor]:
    leaves = tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
