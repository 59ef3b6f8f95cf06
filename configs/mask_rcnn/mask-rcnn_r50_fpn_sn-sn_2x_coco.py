# Table 4, row SN/SN, at full scale, from released ImageNet weights with SN.
_base_ = ['../_base_/rows/mask-rcnn_sn-sn.py', '../_base_/scales/coco_mask-rcnn.py']

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
    roi_head=dict(bbox_head=dict(norm_cfg=released), mask_head=dict(norm_cfg=released)),
)
