# Table 5, Cityscapes, row SyncBN, at digits scale.
_base_ = ['../_base_/rows/fcn_syncbn.py', '../_base_/scales/digits_cityscapes.py']

model = dict(**_base_.digits_model, data_preprocessor=_base_.padding)
model['backbone'].init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth'
