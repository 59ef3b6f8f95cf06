# Batch norm over groups of the optimizer's batch.
_base_ = './resnet18-w16_cluttered-digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='GhostBN')))
