# Table 5, row GN: FCN on ResNet-50, output stride 8; published mIoU
# ADE20K 35.7 (one scale), 36.3 (several); Cityscapes 68.4, 73.1.
# Like the row SyncBN, with GN at every norm.
_base_ = './fcn_syncbn.py'

norm_cfg = dict(type='GN', num_groups=32)
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg),
)
