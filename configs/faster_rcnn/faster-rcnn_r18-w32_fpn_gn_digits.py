# GN in backbone and FPN, from the backbone pretrained with GN.
_base_ = './faster-rcnn_r18-w32_fpn_digits.py'

norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    backbone=dict(
        norm_cfg=norm_cfg,
        init_cfg=dict(checkpoint='work_dirs/resnet18-w32_gn_digits/epoch_3.pth'),
    ),
    neck=dict(norm_cfg=norm_cfg),
)
