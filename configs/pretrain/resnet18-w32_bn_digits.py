# Digit classification with BN: the backbone that the BN models at digits scale start from.
_base_ = './resnet18-w32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
