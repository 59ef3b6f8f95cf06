# Segmentor of the league, SSN, at digits scale.
_base_ = ['../_base_/rows/practice_ssn.py', '../_base_/scales/digits_whitening_fcn.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = dict(checkpoint='work_dirs/resnet18-w32_ssn_1xb32_digits/epoch_9.pth')
optim_wrapper = _base_.row_rates
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
