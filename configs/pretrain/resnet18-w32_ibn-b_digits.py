# Digit classification with IBN-Net-b.
_base_ = './resnet18-w32_digits.py'

model = dict(backbone=dict(type='IBNResNet', ibn_cfg=('b', 'b', None, None)))
