# Digit classification with SN: the backbone that the SN models at digits scale start from.
_base_ = './resnet18-w32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='SN')))
