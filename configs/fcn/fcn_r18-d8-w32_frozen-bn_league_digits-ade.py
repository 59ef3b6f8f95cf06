# Segmentor of the league, frozen BN, at digits scale.
_base_ = ['../_base_/rows/practice_frozen-bn.py', '../_base_/scales/digits_whitening_fcn.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = dict(checkpoint='work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth')
