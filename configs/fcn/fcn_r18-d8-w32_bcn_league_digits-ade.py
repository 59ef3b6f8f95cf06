# Segmentor of the league, BCN, at digits scale.
_base_ = ['../_base_/rows/league_bcn.py', '../_base_/scales/digits_whitening_fcn.py']

model = dict(backbone=_base_.backbone)
model['backbone'].norm_cfg.num_groups = 8
model['backbone'].init_cfg = dict(checkpoint='work_dirs/resnet18-w32_bcn_1xb32_digits/epoch_9.pth')
