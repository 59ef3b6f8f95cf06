# Classifier of the table of batch noise: BN, statistics of each 32 images.
_base_ = './resnet18-w16_bn_batch-noise_digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='GhostBN', virtual_batch_size=32)))
