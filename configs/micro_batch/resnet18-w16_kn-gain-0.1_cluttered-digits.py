# KN with the released gain for micro-batches, where it was released for: 2 images.
_base_ = './resnet18-w16_kn_cluttered-digits.py'

normalization_batches = [2]
model = dict(backbone=dict(norm_cfg=dict(gain=0.1)))
