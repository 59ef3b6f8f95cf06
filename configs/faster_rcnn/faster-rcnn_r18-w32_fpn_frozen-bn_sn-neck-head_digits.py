# SN in FPN and box head on a backbone of frozen BN, pretrained with BN.
_base_ = './faster-rcnn_r18-w32_fpn_digits.py'

model = dict(
    type='NormPlacement',
    model_type='FasterRCNN',
    # mmdet's FPN has no norms by default, nor has its box head of two fully connected layers.
    neck=dict(norm_cfg=dict(type='BN')),
    roi_head=dict(
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead', conv_out_channels=64, norm_cfg=dict(type='BN')
        ),
    ),
    norms=[
        dict(where='backbone.*', norm_cfg=dict(type='PortableSyncBN', frozen=True)),
        dict(where='neck.*', norm_cfg=dict(type='SN')),
        dict(where='roi_head.*', norm_cfg=dict(type='SN')),
    ],
)
