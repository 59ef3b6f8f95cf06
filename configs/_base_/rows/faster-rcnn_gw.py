# GW's README: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule, 2 images a GPU, box head of four
# convolutions; published AP 39.60 (GN 37.86).
#
# Released code: GW of 64 groups at the stem's norm, after the 3x3 convolutions of all stages, and
# in the box head; GN in the FPN. The other norms of the backbone are BN, frozen.
_base_ = '../models/faster-rcnn_r50_fpn_rows.py'

norm_cfg = dict(type='GW', num_groups=64)
frozen = dict(type='PortableSyncBN', frozen=True)
model = dict(
    backbone=dict(
        type='NormPlacement',
        model_type='ResNet',
        norm_cfg=norm_cfg,
        norms=[
            dict(where='layer[1-4].*.bn[13]', norm_cfg=frozen),
            dict(where='*.downsample.*', norm_cfg=frozen),
        ],
    ),
    neck=dict(norm_cfg=dict(type='GN', num_groups=32)),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
    ),
)
