# BN in backbone and FPN, trained at 2 images a batch, from the backbone pretrained with BN.
_base_ = './faster-rcnn_r18-w32_fpn_digits.py'

norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(
        norm_cfg=norm_cfg,
        init_cfg=dict(checkpoint='work_dirs/resnet18-w32_bn_digits/epoch_3.pth'),
    ),
    neck=dict(norm_cfg=norm_cfg),
)
