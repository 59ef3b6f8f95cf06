# SSN on digits: the backbone of its rows at digits scale, and a row of the tables.
_base_ = [
    '../_base_/rows/resnet_ssn.py',
    '../_base_/models/classification-rows_r18-w32.py',
    '../_base_/datasets/digits_classification-rows_color-lighting.py',
    '../_base_/schedules/digits_classification-rows.py',
]

model = _base_.digits_model
# Like the lighting: of a hundred epochs.
model.head.dropout_rate = 0.0
# 900 iterations are too few for a running average that keeps 0.997.
model.backbone.norm_cfg = dict(momentum=0.1)
optim_wrapper = dict(paramwise_cfg=_base_.ssn_paramwise)
custom_hooks = [*_base_.custom_hooks, _base_.last_epochs, *_base_.ssn_hooks]
