# Table 3, row BN†/SN: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 38.0.
#
# SN stands after every convolution of the FPN. Unknown: the box head of the published row; the
# released Faster R-CNN configs have the plain 2-fc head of mmdet's base.
_base_ = './faster-rcnn_frozen-bn.py'

# momentum: the released detection code keeps 0.997 of the old value.
norm_cfg = dict(type='SN', momentum=0.003)
model = dict(
    neck=dict(norm_cfg=norm_cfg),
)
