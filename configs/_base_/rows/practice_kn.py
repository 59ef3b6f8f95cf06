# KN from the batch norm's weights, linked through the backbone (docs/kn.md).
backbone = dict(norm_cfg=dict(type='KN'))
row_hooks = [dict(type='KalmanLinkHook')]
