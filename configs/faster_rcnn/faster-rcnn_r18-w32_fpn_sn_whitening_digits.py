# Detector of the table of whitening, SN at 2 images a batch.
_base_ = ['../_base_/rows/whitening_sn.py', '../_base_/scales/digits_whitening_faster-rcnn.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = dict(checkpoint='work_dirs/resnet18-w32_sn_1xb32_digits/epoch_9.pth')
