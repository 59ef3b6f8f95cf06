# GN everywhere, from the backbone pretrained with GN.
_base_ = './fcn_r18-d8-w32_digits.py'

norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    backbone=dict(
        norm_cfg=norm_cfg,
        init_cfg=dict(checkpoint='work_dirs/resnet18-w32_gn_digits/epoch_3.pth'),
    ),
    decode_head=dict(norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg),
)
