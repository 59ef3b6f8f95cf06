# Segmentor of the league, MABN, at digits scale.
_base_ = ['../_base_/rows/league_mabn.py', '../_base_/scales/digits_whitening_fcn.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = dict(checkpoint='work_dirs/resnet18-w32_mabn_1xb32_digits/epoch_9.pth')
