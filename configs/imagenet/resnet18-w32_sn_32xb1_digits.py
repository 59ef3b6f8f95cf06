# SN on digits, 32 GPUs x 1 image on one device.
_base_ = './resnet18-w32_sn_1xb32_digits.py'

# Without BN, as at full scale; no statistics are shared by images then.
model = dict(backbone=dict(norm_cfg=dict(using_bn=False)))
