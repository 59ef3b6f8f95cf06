# Group norm: its statistics are those of one image, whatever the batch.
_base_ = './resnet18-w16_cluttered-digits.py'

normalization_batches = []
model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=4)))
