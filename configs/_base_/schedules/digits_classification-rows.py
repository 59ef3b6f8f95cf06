# The ImageNet schedule at the same fractions of 9 epochs of 100 iterations. The learning rate and
# the length were chosen on BN and GN alone (docs/lab/reproduce_pilot.md, light_pilot_tables.md).
_base_ = ['mmpretrain::_base_/default_runtime.py', '../runtime.py']

train_cfg = dict(by_epoch=True, max_epochs=9, val_interval=3)
val_cfg = {}
test_cfg = {}

optim_wrapper = dict(
    constructor='NormOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0001),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=900),
]

auto_scale_lr = dict(enable=False, base_batch_size=32)

default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook', max_keep_ckpts=2))
randomness = dict(seed=0)
