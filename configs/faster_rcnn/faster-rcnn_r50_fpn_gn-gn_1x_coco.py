# Table 3, row GN/GN: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 38.2.
#
# GN stands after every convolution of the FPN and in a box head of four convolutions, as the
# GN baselines of Detectron have it. Unknown: the box head of the published row.
_base_ = '../_base_/models/faster-rcnn_r50_fpn_1x_coco.py'

norm_cfg = dict(type='GN', num_groups=32)
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
    ),
)
