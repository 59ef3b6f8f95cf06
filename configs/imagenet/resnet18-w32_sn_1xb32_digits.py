# SN on digits: the backbone of its rows at digits scale, and a row of the tables.
_base_ = [
    '../_base_/rows/resnet_sn.py',
    '../_base_/models/classification-rows_r18-w32.py',
    '../_base_/datasets/digits_classification-rows_lighting.py',
    '../_base_/schedules/digits_classification-rows.py',
]

model = _base_.digits_model
# Like the lighting: of a hundred epochs.
model.head.dropout_rate = 0.0
custom_hooks = [*_base_.custom_hooks, _base_.last_epochs]
