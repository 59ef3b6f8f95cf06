# ResNet-50 with GN on ImageNet, 8 GPUs x 32 images: published top-1 75.9.
_base_ = ['../_base_/rows/resnet_gn.py', '../_base_/scales/imagenet.py']
