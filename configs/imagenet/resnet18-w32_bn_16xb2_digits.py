# BN on digits, statistics of each 2 images: 16 GPUs x 2 images on one device.
_base_ = './resnet18-w32_bn_1xb32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='GhostBN', virtual_batch_size=2)))
