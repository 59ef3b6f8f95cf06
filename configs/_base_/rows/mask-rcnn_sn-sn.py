# Table 4, row SN/SN: Mask R-CNN+FPN, ResNet-50, COCO, 2x schedule; published AP 41.0, 36.5.
#
# SN stands after every convolution of the FPN, and in box and mask heads of four convolutions each,
# as in the released code. Stem and first stage keep their weights
# and statistics (FREEZE_AT: 2); the released code leaves the SN of the first stage on those of the
# batch, in tests too.
_base_ = './mask-rcnn_frozen-bn_sn-head.py'

model = dict(backbone=dict(norm_cfg=dict(**_base_.norm_cfg, requires_grad=True), norm_eval=False))
