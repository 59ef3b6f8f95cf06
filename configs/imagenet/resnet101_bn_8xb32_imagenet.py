# ResNet-101, BN, IBN-Net's baseline, on ImageNet, 8 GPUs x 32 images: published top-1 error 22.48.
_base_ = './resnet50_bn_8xb32_imagenet.py'

model = dict(backbone=dict(depth=101))
