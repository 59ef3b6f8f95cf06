# mmpretrain's standard, which equals the released recipes: SGD 0.1 for 256 images, momentum 0.9,
# weight decay 1e-4, 100 epochs, a tenth of the rate at 30, 60 and 90. With fewer images the rate
# is linear in their number (SN's released recipe, here of all norms). The decay reaches all
# parameters, gamma, beta and SN's logits too (SN's released code).
_base_ = [
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py',
    '../runtime.py',
]

optim_wrapper = dict(constructor='NormOptimWrapperConstructor')
auto_scale_lr = dict(enable=False)
default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'))
