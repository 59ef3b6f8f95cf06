# SSN from the batch norm's weights, with the released recipe of its ratios (docs/ssn.md).
backbone = dict(norm_cfg=dict(type='SSN'))
row_rates = dict(
    constructor='NormOptimWrapperConstructor',
    paramwise_cfg=dict(ratio_lr_mult=0.1, ratio_decay_mult=0.0),
)
row_hooks = [dict(type='SSNRadiusHook'), dict(type='RatioGradClipHook', max_norm=1.0)]
