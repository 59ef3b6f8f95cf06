# Detector of the league, SSN, at full scale.
_base_ = ['../_base_/rows/league_ssn.py', '../_base_/scales/league_coco.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = _base_.weights
optim_wrapper = _base_.row_rates
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
