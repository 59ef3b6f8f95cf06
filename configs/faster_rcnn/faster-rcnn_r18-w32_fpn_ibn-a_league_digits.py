# Detector of the league, IBN-a, at digits scale.
_base_ = ['../_base_/rows/league_ibn-a.py', '../_base_/scales/digits_whitening_faster-rcnn.py']

model = dict(backbone=_base_.backbone)
checkpoint = 'work_dirs/resnet18-w32_ibn-a_1xb32_digits/epoch_9.pth'
model['backbone'].init_cfg = dict(checkpoint=checkpoint)
