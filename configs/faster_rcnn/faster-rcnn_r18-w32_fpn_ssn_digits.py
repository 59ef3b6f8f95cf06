# SSN in backbone and FPN, from the backbone pretrained with SSN, whose ratios have decided.
# The recipe for those of the FPN is explained in configs/pretrain/resnet18-w32_ssn_digits.py.
_base_ = './faster-rcnn_r18-w32_fpn_digits.py'

norm_cfg = dict(type='SSN')
model = dict(
    backbone=dict(
        norm_cfg=norm_cfg,
        init_cfg=dict(checkpoint='work_dirs/resnet18-w32_ssn_digits/epoch_3.pth'),
    ),
    neck=dict(norm_cfg=norm_cfg),
)
optim_wrapper = dict(
    constructor='NormOptimWrapperConstructor',
    paramwise_cfg=dict(ratio_lr_mult=0.1, ratio_decay_mult=0.0),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='SSNRadiusHook'),
    dict(type='RatioGradClipHook', max_norm=1.0),
    dict(type='NormRatioHook', interval=50),
]
