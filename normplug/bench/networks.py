"""Build detectors and segmentors from mm's own configs, with one norm everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import set_random_seed
from torch import nn

from normplug.preflight.config_types import scope_of
from normplug.quiet import quiet_logger

from .contenders import NAIVE

__all__ = ['NETWORKS', 'Network', 'random_training_batch']

NETWORKS = {
    'mask-rcnn': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'faster-rcnn': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'fcn': 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
}
_OBJECTS = 10  # ground truth boxes in an image
_CLASSES = {'mmdet': 80, 'mmseg': 19, 'mmpretrain': 1000, 'mmaction': 400}


@dataclass(frozen=True)
class Network:
    """A key of ``NETWORKS``, and the random images that it is trained on."""

    name: str
    images: int
    height: int
    width: int

    def build(self, norm: str) -> nn.Module:
        """The model with ``norm`` everywhere, nothing frozen, random weights of a fixed seed."""
        cfg = Config.fromstring(f'_base_ = {NETWORKS[self.name]!r}', '.py')
        norm_cfg = {'type': norm, **({'num_groups': 32} if norm == 'GN' else {})}
        if norm in NAIVE and norm not in MODELS:
            MODELS.register_module(name=norm, module=NAIVE[norm])
        model = cfg.model
        model.backbone.update(norm_cfg=norm_cfg, norm_eval=False, init_cfg=None)
        if scope_of(cfg) == 'mmdet':
            _detector(model, norm_cfg)
        else:
            model.update(pretrained=None)
            model.data_preprocessor.update(size=(self.height, self.width))
            for head in (model.decode_head, model.auxiliary_head):
                head.update(norm_cfg=norm_cfg)
        set_random_seed(0)
        with DefaultScope.overwrite_default_scope(scope_of(cfg)):
            built = MODELS.build(model)
            with quiet_logger():
                built.init_weights()
        return built.train()

    def data(self) -> dict[str, Any]:
        """A batch for ``train_step``, the same at each call."""
        scope = NETWORKS[self.name].partition('::')[0]
        return random_training_batch(scope, self.images, self.height, self.width)


def random_training_batch(scope: str, images: int, *size: int) -> dict[str, Any]:
    """A batch of noise with random truth for ``train_step`` of a model of mm's 'scope'.

    Args:
        scope: of the package.
        images: how many, or how many clips.
        size: height and width; of a clip frames, height and width.
    """
    if scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(
            batch_size=images,
            image_shapes=(3, *size),
            num_items=[_OBJECTS] * images,
            num_classes=_CLASSES[scope],
            with_mask=True,
        )
    draw = torch.Generator().manual_seed(0)
    inputs = [
        torch.randint(256, (3, *size), generator=draw, dtype=torch.uint8) for _ in range(images)
    ]
    if scope == 'mmaction':
        samples = [_label_of_clip(draw) for _ in range(images)]
        return dict(inputs=[clip[None] for clip in inputs], data_samples=samples)
    make = _labels_of_image if scope == 'mmpretrain' else _labels_of_pixels
    return dict(inputs=inputs, data_samples=[make(*size, draw) for _ in range(images)])


def _labels_of_pixels(height: int, width: int, draw: torch.Generator) -> Any:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.randint(_CLASSES['mmseg'], (1, height, width), generator=draw)
    sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
    sample.gt_sem_seg = PixelData(data=labels)
    return sample


def _labels_of_image(height: int, width: int, draw: torch.Generator) -> Any:
    from mmpretrain.structures import DataSample

    label = int(torch.randint(_CLASSES['mmpretrain'], (), generator=draw))
    return DataSample(metainfo=dict(img_shape=(height, width))).set_gt_label(label)


def _label_of_clip(draw: torch.Generator) -> Any:
    from mmaction.structures import ActionDataSample

    label = int(torch.randint(_CLASSES['mmaction'], (), generator=draw))
    return ActionDataSample().set_gt_label(label)


def _detector(model: Config, norm_cfg: dict) -> None:
    """Put the norm everywhere, also into a box head of four convolutions, as in the papers' rows.

    Only the true boxes, which are added to the proposals, are positive, and nothing that a network
    happens to propose near them. So the heads' work is the same for every norm.
    """
    model.backbone.update(frozen_stages=-1)
    model.neck.update(norm_cfg=norm_cfg)
    box_head = model.roi_head.bbox_head
    box_head.update(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg)
    true_only = dict.fromkeys(('pos_iou_thr', 'neg_iou_thr', 'min_pos_iou'), 0.99)
    model.train_cfg.rcnn.assigner.update(true_only)
    if model.roi_head.get('mask_head'):
        model.roi_head.mask_head.update(norm_cfg=norm_cfg)
