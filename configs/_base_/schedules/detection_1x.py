# The 1x schedule of the rows of detection: mmdet's, with the optimizer and the warm-up of the
# released SN detection code, which are Detectron's. Its 1x, as recalled: 90k iterations with drops
# at 60k and 80k, which are 12.3, 8.2 and 10.9 epochs; 12, 8 and 11 here.
_base_ = [
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    '../runtime.py',
]

# No decay for gamma and the logits; biases, beta among them, at twice the rate, without decay.
optim_wrapper = dict(
    constructor='NormOptimWrapperConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        ratio_decay_mult=0.0,
        bias_lr_mult=2.0,
        norm_bias_lr_mult=2.0,
        bias_decay_mult=0.0,
    ),
)
# Linear warm-up from a third.
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]

default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'))
