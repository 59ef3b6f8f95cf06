# ResNet-50 with SN on ImageNet, 8 GPUs x 32 images: published top-1 76.9.
_base_ = [
    '../_base_/rows/resnet_sn.py',
    '../_base_/datasets/imagenet-rows_lighting.py',
    '../_base_/schedules/imagenet-rows_100e.py',
]

custom_hooks = [*_base_.custom_hooks, _base_.last_epochs]
