# KN/KN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; in no table.
#
# KN stands where SN does in table 4. In the heads, which see RoIs, a chain is theirs alone; the
# FPN's merges cannot be followed, so that its norms are mostly plain batch norms: docs/kn.md. Gain
# and transition are this project's, not the released ones, which fail: docs/micro_batch.md.
# Statistics are those of a process. To train 2 images at a time with more of them in a process,
# give backbone and FPN `virtual_batch_size=2` (not the heads: docs/kn.md), and the loader
# `drop_last`. Unknown: how the published detectors with KN were trained.
_base_ = '../models/mask-rcnn_r50_fpn_rows.py'

norm_cfg = dict(type='KN')
model = dict(
    backbone=dict(norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

row_hooks = [dict(type='KalmanLinkHook')]
