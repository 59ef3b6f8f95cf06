# Table 5, Cityscapes, row GN, at digits scale.
_base_ = ['../_base_/rows/fcn_gn.py', '../_base_/scales/digits_cityscapes.py']

model = dict(**_base_.digits_model, data_preprocessor=_base_.padding)
model['backbone'].init_cfg.checkpoint = 'work_dirs/resnet18-w32_gn_1xb32_digits/epoch_9.pth'
model['backbone'].norm_cfg = _base_.digits_gn
model['decode_head'].update(norm_cfg=_base_.digits_gn)
model['auxiliary_head'].update(norm_cfg=_base_.digits_gn)
