# BN on digits, statistics of a single image: 32 GPUs x 1 image on one device.
_base_ = './resnet18-w32_bn_1xb32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='GhostBN', virtual_batch_size=1)))
