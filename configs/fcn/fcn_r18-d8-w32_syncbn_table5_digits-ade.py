# Table 5, ADE20K, row SyncBN, at digits scale.
_base_ = ['../_base_/rows/fcn_syncbn.py', '../_base_/scales/digits_ade20k.py']

model = dict(**_base_.digits_model, data_preprocessor=_base_.padding)
model['backbone'].init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth'
model['decode_head'].update(_base_.loss_at_an_eighth)
model['auxiliary_head'].update(_base_.loss_at_an_eighth)
