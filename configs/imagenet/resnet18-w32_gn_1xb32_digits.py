# GN on digits: the backbone of its rows at digits scale, and a row of the tables.
_base_ = [
    '../_base_/rows/resnet_gn.py',
    '../_base_/models/classification-rows_r18-w32.py',
    '../_base_/datasets/digits_classification-rows.py',
    '../_base_/schedules/digits_classification-rows.py',
]

model = _base_.digits_model
# Of the stem's 32 channels, 32 groups would be an instance norm.
model.backbone.norm_cfg = dict(num_groups=8)
