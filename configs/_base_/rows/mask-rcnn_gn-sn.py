# Table 4, row GN/SN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; published AP 40.4, 36.0.
#
# SN stands after every convolution of the FPN, and in box and mask heads of four convolutions each,
# as in the released code. Stem and first stage keep their weights (FREEZE_AT: 2).
_base_ = './mask-rcnn_frozen-bn_sn-head.py'

model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=32, requires_grad=True)))
