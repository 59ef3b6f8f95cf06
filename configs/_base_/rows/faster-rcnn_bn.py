# Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule, BN of the backbone trained on the statistics of
# each GPU's images; no norm after the backbone. In the table of batch noise; no published number.
#
# Stem and first stage keep their weights and statistics, as in the other rows. Unknown: the
# momentum of a trained BN at so few images; here PyTorch's.
_base_ = './faster-rcnn_frozen-bn.py'

model = dict(backbone=dict(norm_cfg=dict(requires_grad=True), norm_eval=False))
