# Segmentor of the table of whitening, SW at 1 image a batch.
_base_ = ['../_base_/rows/whitening_sw.py', '../_base_/scales/digits_whitening_fcn_b1.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = dict(checkpoint='work_dirs/resnet18-w32_sw_1xb32_digits/epoch_9.pth')
