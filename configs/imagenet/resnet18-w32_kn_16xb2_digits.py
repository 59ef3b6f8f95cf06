# KN on digits, statistics of each 2 images: 16 GPUs x 2 images on one device.
_base_ = './resnet18-w32_kn_1xb32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(virtual_batch_size=2)))
