# Table 3, row BN†/GN: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 37.2.
#
# GN stands after every convolution of the FPN and in a box head of four convolutions, as the
# GN baselines of Detectron have it. Unknown: the box head of the published row.
_base_ = './faster-rcnn_frozen-bn.py'

norm_cfg = dict(type='GN', num_groups=32)
model = dict(
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
    ),
)
