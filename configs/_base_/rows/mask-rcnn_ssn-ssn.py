# SSN/SSN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; in no table.
#
# SSN stands where SN does in table 4. Its recipe for the ratios is explained in docs/ssn.md.
_base_ = '../models/mask-rcnn_r50_fpn_rows.py'

# momentum: the released code keeps 0.997 of the old value.
norm_cfg = dict(type='SSN', momentum=0.003)
model = dict(
    backbone=dict(norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

# The released recipe: a tenth of the learning rate for the ratios, no decay (that every row has),
# their gradient clipped at a norm of 1, and a radius that grows to 1 with the progress of training.
row_rates = dict(ratio_lr_mult=0.1)
row_hooks = [
    dict(type='SSNRadiusHook'),
    dict(type='RatioGradClipHook', max_norm=1.0),
    dict(type='NormRatioHook', interval=100),
]
