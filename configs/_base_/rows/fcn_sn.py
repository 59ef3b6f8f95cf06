# Table 5, row SN: FCN on ResNet-50, output stride 8; published mIoU
# ADE20K 38.7 (one scale), 39.2 (several); Cityscapes 71.2, 75.1.
# Like the row SyncBN, with SN at every norm.
_base_ = './fcn_syncbn.py'

norm_cfg = dict(type='SN')
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg),
)
