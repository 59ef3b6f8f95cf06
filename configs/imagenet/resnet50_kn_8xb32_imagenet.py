# ResNet-50 with KN on ImageNet, 256 images for a gradient and 32 for statistics: published top-1
# 76.8.
_base_ = ['../_base_/rows/resnet_kn.py', '../_base_/scales/imagenet.py']
