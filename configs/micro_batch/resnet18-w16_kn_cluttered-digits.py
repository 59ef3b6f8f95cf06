# KN over groups of the optimizer's batch.
_base_ = './resnet18-w16_cluttered-digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='KN', gain=0.9)))
# A list replaces the base's: the two that all configs have, and the one that links KN's layers.
custom_hooks = [
    dict(type='SampleSeedHook'),
    dict(type='NonFiniteLossHook'),
    dict(type='KalmanLinkHook'),
]
