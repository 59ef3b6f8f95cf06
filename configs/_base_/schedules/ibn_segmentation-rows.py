# IBN-Net's Table 6: lr, length and images a step were not published. mmseg's 80k schedule: SGD, lr
# 0.01 for 4 GPUs x 2 images, decay 5e-4, poly of power 0.9 to 1e-4.
_base_ = [
    'mmseg::_base_/schedules/schedule_80k.py',
    'mmseg::_base_/default_runtime.py',
    '../runtime.py',
]

optim_wrapper = dict(constructor='NormOptimWrapperConstructor')
auto_scale_lr = dict(enable=False, base_batch_size=8)
default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook', max_keep_ckpts=2))
