# Table 5 on ADE20K, the released code: SGD, lr 0.02 for 8 GPUs x 2 images, poly of power 0.9 to 0
# over 100k iterations (20 epochs of 5000). Decay for the weights of convolutions alone: none for
# biases, gamma, beta and SN's logits. Checkpoints at the end of an epoch, as there.
_base_ = ['mmseg::_base_/default_runtime.py', '../runtime.py']

train_cfg = dict(type='IterBasedTrainLoop', max_iters=100000, val_interval=20000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='NormOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0, ratio_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=100000, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='ResumableCheckpointHook', by_epoch=False, interval=5000, max_keep_ckpts=2
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
