# Table 4, row GN/GN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; published AP 40.2, 35.7.
#
# GN stands after every convolution of the FPN, and in box and mask heads of four convolutions each,
# as in the released code. Stem and first stage keep their weights (FREEZE_AT: 2).
_base_ = '../models/mask-rcnn_r50_fpn_rows.py'

norm_cfg = dict(type='GN', num_groups=32)
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
