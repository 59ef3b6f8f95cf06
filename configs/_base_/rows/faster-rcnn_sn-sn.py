# Table 3, row SN/SN: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 39.3.
#
# SN stands at every norm of the backbone and after every convolution of the FPN, as in the
# released detection code. Unknown: the box head of the published row (the code of its numbers was
# never released). The released Faster R-CNN configs have the plain 2-fc head of mmdet's base.
# Stem and first stage keep their weights and statistics (FREEZE_AT: 2); the released code leaves
# the SN of the first stage on those of the batch, in tests too.
_base_ = '../models/faster-rcnn_r50_fpn_rows.py'

# momentum: the released detection code keeps 0.997 of the old value.
norm_cfg = dict(type='SN', momentum=0.003)
model = dict(
    backbone=dict(norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
)
