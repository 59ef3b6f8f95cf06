# ResNet-50, IBN-Net-a, on ImageNet, 8 GPUs x 32 images: published top-1 error 22.54.
_base_ = [
    '../_base_/rows/resnet_ibn-a.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/imagenet-rows_100e.py',
]
