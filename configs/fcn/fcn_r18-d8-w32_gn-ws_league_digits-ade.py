# Segmentor of the league, GN+WS, at digits scale.
_base_ = ['../_base_/rows/league_gn-ws.py', '../_base_/scales/digits_whitening_fcn.py']

model = dict(backbone=_base_.backbone)
model['backbone'].norm_cfg.num_groups = 8
checkpoint = 'work_dirs/resnet18-w32_gn-ws_1xb32_digits/epoch_9.pth'
model['backbone'].init_cfg = dict(checkpoint=checkpoint)
