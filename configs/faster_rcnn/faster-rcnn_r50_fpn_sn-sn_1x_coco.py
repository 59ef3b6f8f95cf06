# Table 3, row SN/SN: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 39.3.
#
# SN stands at every norm of the backbone and after every convolution of the FPN, as in the
# released detection code. Unknown: the box head of the published row (the code of its numbers was
# never released). The released Faster R-CNN configs have the plain 2-fc head of mmdet's base.
_base_ = '../_base_/models/faster-rcnn_r50_fpn_1x_coco.py'

# released_statistics: the released ImageNet weights were trained with them.
# momentum: the released detection code keeps 0.997 of the old value.
norm_cfg = dict(type='SN', momentum=0.003, released_statistics=True)
model = dict(
    backbone=dict(
        norm_cfg=norm_cfg,
        norm_eval=False,
        # Released code, FREEZE_AT: 2. Stem and first stage keep their weights and statistics.
        frozen_stages=1,
        # The released ImageNet ResNet50v1+SN (8,2), as it is or converted to our names.
        init_cfg=dict(
            _delete_=True,
            type='ReleasedPretrained',
            checkpoint='checkpoints/resnet50v1_sn_8x2.pth',
        ),
    ),
    neck=dict(norm_cfg=norm_cfg),
)
