# KN on digits, statistics of each 16 images: 2 GPUs x 16 images on one device.
_base_ = './resnet18-w32_kn_1xb32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(virtual_batch_size=16)))
