# ResNet-50, IBN-Net-a, on ImageNet, 8 GPUs x 32 images: published top-1 error 22.54.
_base_ = ['../_base_/rows/resnet_ibn-a.py', '../_base_/scales/imagenet.py']
