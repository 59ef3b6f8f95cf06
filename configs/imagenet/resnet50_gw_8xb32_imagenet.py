# ResNet-50 with GW on ImageNet, 8 GPUs x 32 images: published top-1 77.72.
_base_ = ['../_base_/rows/resnet_gw.py', '../_base_/scales/imagenet.py']
