# Table 3, row SN/SN: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 39.3.
#
# SN stands at every norm of the backbone and after every convolution of the FPN, as in the
# released detection code. Unknown: the box head of the published row (the code of its numbers was
# never released). The released Faster R-CNN configs have the plain 2-fc head of mmdet's base.
# Stem and first stage keep their weights and statistics (FREEZE_AT: 2); the released code leaves
# the SN of the first stage on those of the batch, in tests too.
_base_ = './faster-rcnn_frozen-bn_sn-head.py'

model = dict(backbone=dict(norm_cfg=dict(**_base_.norm_cfg, requires_grad=True), norm_eval=False))
