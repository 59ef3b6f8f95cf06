# Frozen BN in the backbone (running statistics and affine of the pretraining), no other norm.
_base_ = './faster-rcnn_r18-w32_fpn_digits.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True))
