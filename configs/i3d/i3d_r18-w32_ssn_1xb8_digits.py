# Table 6 with SSN, 8 clips a batch, at digits scale.
_base_ = ['../_base_/rows/i3d_ssn.py', '../_base_/scales/digits_kinetics.py']

model = _base_.digits_model
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_ssn_1xb32_digits/epoch_9.pth'
# 800 iterations are too few for a running average that keeps 0.997.
model.backbone.norm_cfg = dict(momentum=0.1)
optim_wrapper = dict(paramwise_cfg=_base_.row_rates)
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
