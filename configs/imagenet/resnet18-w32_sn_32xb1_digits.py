# SN on digits, statistics of a single image: 32 GPUs x 1 image on one device.
_base_ = './resnet18-w32_sn_1xb32_digits.py'

# Without BN, as at full scale.
model = dict(backbone=dict(norm_cfg=dict(using_bn=False, virtual_batch_size=1)))
