# Table 5, row SyncBN: FCN on ResNet-50, output stride 8; published mIoU
# ADE20K 36.4 (one scale), 37.7 (several); Cityscapes 69.7, 73.0.
#
# SyncBN stands at every norm of the backbone and in both heads, which have 512 channels and no
# dropout (released code for ADE20K; that for Cityscapes was never released, but beside it lies a
# network that nothing trains: dropout 0.1, auxiliary head of 256 channels, full dilation in all
# blocks).
_base_ = '../models/fcn_r50-d8_segmentation-rows.py'

norm_cfg = dict(type='SyncBN')
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(norm_cfg=norm_cfg, dropout_ratio=0.0),
    auxiliary_head=dict(norm_cfg=norm_cfg, channels=512, dropout_ratio=0.0),
)
