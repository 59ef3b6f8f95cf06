# Table 4, row SN/SN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; published AP 41.0, 36.5.
#
# SN stands after every convolution of the FPN, and in box and mask heads of four convolutions each,
# as in the released code. Stem and first stage keep their weights
# and statistics (FREEZE_AT: 2); the released code leaves the SN of the first stage on those of the
# batch, in tests too.
_base_ = '../models/mask-rcnn_r50_fpn_rows.py'

# momentum: the released detection code keeps 0.997 of the old value.
norm_cfg = dict(type='SN', momentum=0.003)
model = dict(
    backbone=dict(norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
