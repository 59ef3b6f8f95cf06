# ResNet-50 with SSN on ImageNet, 8 GPUs x 32 images: published top-1 77.2.
_base_ = [
    '../_base_/rows/resnet_ssn.py',
    '../_base_/datasets/imagenet-rows_color-lighting.py',
    '../_base_/schedules/imagenet-rows_100e.py',
]

optim_wrapper = dict(paramwise_cfg=_base_.ssn_paramwise)
custom_hooks = [*_base_.custom_hooks, _base_.last_epochs, *_base_.ssn_hooks]
