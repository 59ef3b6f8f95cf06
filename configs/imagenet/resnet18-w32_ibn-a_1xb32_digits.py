# IBN-Net-a on digits: the backbone of its rows at digits scale, and a row of the tables.
_base_ = ['../_base_/rows/resnet_ibn-a.py', '../_base_/scales/digits_imagenet.py']

model = _base_.digits_model
