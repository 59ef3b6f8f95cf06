# GN on digits: the backbone of its rows at digits scale, and a row of the tables.
_base_ = ['../_base_/rows/resnet_gn.py', '../_base_/scales/digits_imagenet.py']

model = _base_.digits_model
# Of the stem's 32 channels, 32 groups would be an instance norm.
model.backbone.norm_cfg = dict(num_groups=8)
