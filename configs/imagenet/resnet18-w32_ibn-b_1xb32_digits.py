# IBN-Net-b on digits: the backbone of its rows at digits scale.
_base_ = ['../_base_/rows/resnet_ibn-b.py', '../_base_/scales/digits_imagenet.py']

model = _base_.digits_model
