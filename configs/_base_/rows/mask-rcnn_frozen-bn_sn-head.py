# Table 4, row BN†/SN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; published AP 40.0, 34.8.
#
# SN stands after every convolution of the FPN, and in box and mask heads of four convolutions each,
# as in the released code. Stem and first stage keep their weights (FREEZE_AT: 2).
_base_ = './mask-rcnn_frozen-bn.py'

# momentum: the released detection code keeps 0.997 of the old value.
norm_cfg = dict(type='SN', momentum=0.003)
model = dict(
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
