train_cfg = dict(type='IterBasedTrainLoop', max_iters=2400, val_interval=800)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10),
    # The heads start from nothing. At their rate the backbone would lose its digits before they
    # have learned to read them; at the backbone's they need thousands of iterations.
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=50.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=50, end=2400, by_epoch=False),
]

# 1 process x 2 images
auto_scale_lr = dict(enable=False, base_batch_size=2)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='ResumableCheckpointHook', by_epoch=False, interval=400, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
