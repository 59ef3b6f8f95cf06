# Table 3, row GN/GN: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 38.2.
#
# GN stands after every convolution of the FPN and in a box head of four convolutions, as the
# GN baselines of Detectron have it. Unknown: the box head of the published row.
_base_ = './faster-rcnn_frozen-bn_gn-head.py'

model = dict(backbone=dict(norm_cfg=dict(**_base_.norm_cfg, requires_grad=True)))
