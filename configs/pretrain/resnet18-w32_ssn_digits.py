# Digit classification with SSN: the backbone that the SSN models at digits scale start from.
# The released recipe for the ratios: a tenth of the learning rate, no weight decay, their gradient
# clipped at a norm of 1, and a radius that grows to 1 with the progress of training.
_base_ = './resnet18-w32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='SSN')))
optim_wrapper = dict(
    constructor='NormOptimWrapperConstructor',
    paramwise_cfg=dict(ratio_lr_mult=0.1, ratio_decay_mult=0.0),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='SSNRadiusHook'),
    dict(type='RatioGradClipHook', max_norm=1.0),
    dict(type='NormRatioHook', interval=20),
]
