# Table 4, row GN/SN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; published AP 40.4, 36.0.
#
# SN stands after every convolution of the FPN, and in box and mask heads of four convolutions each,
# as in the released code. Stem and first stage keep their weights (FREEZE_AT: 2).
_base_ = '../_base_/models/mask-rcnn_r50_fpn_2x_coco.py'

# momentum: the released detection code keeps 0.997 of the old value.
norm_cfg = dict(type='SN', momentum=0.003)
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        norm_cfg=dict(type='GN', num_groups=32),
        # The published ImageNet ResNet-50 with GN (Detectron), which takes BGR pixels as they are.
        init_cfg=dict(checkpoint='open-mmlab://detectron/resnet50_gn'),
    ),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
