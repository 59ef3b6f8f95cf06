# Whitened network: the BN detector of the table of whitening, with the backbone on whitened inputs
# (docs/whitened_networks.md). It starts from BN's pretraining: a plain weight is the canonical one.
_base_ = './faster-rcnn_r18-w32_fpn_bn_whitening_digits.py'

model = dict(backbone=dict(conv_cfg=dict(type='WNNConv')))
custom_hooks = [*_base_.custom_hooks, dict(type='WhiteningHook')]
