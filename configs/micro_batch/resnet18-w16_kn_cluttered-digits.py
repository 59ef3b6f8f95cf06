# KN over groups of the optimizer's batch. The gain is the pilot's (docs/micro_batch.md): with the
# released 0.1 nothing is learned here.
_base_ = './resnet18-w16_cluttered-digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='KN', gain=0.9)))
# A list replaces the base's: the two that all configs have, and the one that links KN's layers.
custom_hooks = [
    dict(type='SampleSeedHook'),
    dict(type='NonFiniteLossHook'),
    dict(type='KalmanLinkHook'),
]
