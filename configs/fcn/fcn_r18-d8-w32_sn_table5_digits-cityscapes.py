# Table 5, Cityscapes, row SN, at digits scale.
_base_ = ['../_base_/rows/fcn_sn.py', '../_base_/scales/digits_cityscapes.py']

model = dict(**_base_.digits_model, data_preprocessor=_base_.padding)
model['backbone'].init_cfg.checkpoint = 'work_dirs/resnet18-w32_sn_1xb32_digits/epoch_9.pth'
