# ResNet-50 with PN on ImageNet, 8 GPUs x 32 images.
_base_ = ['../_base_/rows/resnet_pn.py', '../_base_/scales/imagenet.py']
