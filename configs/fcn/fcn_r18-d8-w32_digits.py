# What this folder shares but for the data: a norm's file sets the norms and the weights that it
# starts from, and its leaves add the data.
_base_ = [
    '../_base_/models/fcn_r18-d8-w32_digits.py',
    '../_base_/schedules/digits_segmentation.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/runtime.py',
]

model = dict(backbone=dict(init_cfg=dict(type='Pretrained', prefix='backbone.')))
randomness = dict(seed=0)
