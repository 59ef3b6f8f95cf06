# ResNet-50 with BN on ImageNet, 8 GPUs x 32 images: top-1 76.4, and 75.73 by IBN-Net.
_base_ = ['../_base_/rows/resnet_bn.py', '../_base_/scales/imagenet.py']
