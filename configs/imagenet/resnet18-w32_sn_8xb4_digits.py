# SN on digits, statistics of each 4 images: 8 GPUs x 4 images on one device.
_base_ = './resnet18-w32_sn_1xb32_digits.py'

model = dict(backbone=dict(norm_cfg=dict(virtual_batch_size=4)))
