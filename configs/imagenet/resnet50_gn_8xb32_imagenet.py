# ResNet-50 with GN on ImageNet, 8 GPUs x 32 images: published top-1 75.9.
_base_ = [
    '../_base_/rows/resnet_gn.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/imagenet-rows_100e.py',
]
