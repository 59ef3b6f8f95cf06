# Table 6, row SN, 8 clips a batch, at digits scale.
_base_ = ['../_base_/rows/i3d_sn.py', '../_base_/scales/digits_kinetics.py']

model = _base_.digits_model
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_sn_1xb32_digits/epoch_9.pth'
