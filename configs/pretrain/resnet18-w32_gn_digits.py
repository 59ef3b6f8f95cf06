# Digit classification with GN: the backbone that the GN models at digits scale start from.
_base_ = './resnet18-w32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=8)))
