# SSN from the batch norm's weights, with the released recipe of its ratios (docs/ssn.md).
backbone = dict(norm_cfg=dict(type='SSN'))
row_hooks = [dict(type='SSNRadiusHook'), dict(type='RatioGradClipHook', max_norm=1.0)]
