# The ablation in which (beta, gamma^2) travels, not the posterior, at 2 images.
_base_ = './resnet18-w16_kn_cluttered-digits.py'

normalization_batches = [2]
model = dict(backbone=dict(norm_cfg=dict(gain=0.5, state='affine')))
