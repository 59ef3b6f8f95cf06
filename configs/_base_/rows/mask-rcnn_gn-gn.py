# Table 4, row GN/GN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; published AP 40.2, 35.7.
#
# GN stands after every convolution of the FPN, and in box and mask heads of four convolutions each,
# as in the released code. Stem and first stage keep their weights (FREEZE_AT: 2).
_base_ = './mask-rcnn_frozen-bn_gn-head.py'

model = dict(backbone=dict(norm_cfg=dict(**_base_.norm_cfg, requires_grad=True)))
