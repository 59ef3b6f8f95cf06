# KN on digits: the backbone of its rows at digits scale, and a row of the tables.
_base_ = [
    '../_base_/rows/resnet_kn.py',
    '../_base_/models/classification-rows_r18-w32.py',
    '../_base_/datasets/digits_classification-rows.py',
    '../_base_/schedules/digits_classification-rows.py',
]

model = _base_.digits_model
