# Detector of the table of batch noise, PN at 1 image a batch, from BN's pretraining: in evaluation
# PN is BN.
_base_ = ['../_base_/rows/whitening_pn.py', '../_base_/scales/digits_whitening_faster-rcnn_b1.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = dict(checkpoint='work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth')
