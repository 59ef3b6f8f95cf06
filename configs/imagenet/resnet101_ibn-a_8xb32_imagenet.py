# ResNet-101, IBN-Net-a, on ImageNet, 8 GPUs x 32 images: published top-1 error 21.39.
_base_ = './resnet50_ibn-a_8xb32_imagenet.py'

model = dict(backbone=dict(depth=101))
