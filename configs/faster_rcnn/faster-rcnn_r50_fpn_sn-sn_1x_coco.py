# Table 3, row SN/SN, at full scale, from released ImageNet weights with SN.
_base_ = ['../_base_/rows/faster-rcnn_sn-sn.py', '../_base_/scales/coco_faster-rcnn.py']

# The released ImageNet ResNet50v1+SN (8,2), as it is or converted to our
# names; it was trained with the released statistics.
released = dict(released_statistics=True)
model = dict(
    backbone=dict(
        norm_cfg=released,
        init_cfg=dict(
            _delete_=True,
            type='ReleasedPretrained',
            checkpoint='checkpoints/resnet50v1_sn_8x2.pth',
        ),
    ),
    neck=dict(norm_cfg=released),
)
