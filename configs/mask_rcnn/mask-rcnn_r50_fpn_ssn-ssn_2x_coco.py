# Mask R-CNN+FPN, 2x schedule, SSN/SSN (in no table), at full scale, from released weights.
_base_ = ['../_base_/rows/mask-rcnn_ssn-ssn.py', '../_base_/scales/coco_mask-rcnn.py']

# The released network pools its stem without padding (docs/checkpoints.md); mmdet's is kept here.
# The released ImageNet ResNet50v1+SSN (8,2), as it is or converted to our
# names; it was trained with the released statistics.
released = dict(released_statistics=True)
model = dict(
    backbone=dict(
        norm_cfg=released,
        init_cfg=dict(
            _delete_=True,
            type='ReleasedPretrained',
            checkpoint='checkpoints/resnet50v1_ssn_8x2.pth',
        ),
    ),
    neck=dict(norm_cfg=released),
    roi_head=dict(bbox_head=dict(norm_cfg=released), mask_head=dict(norm_cfg=released)),
)
optim_wrapper = dict(paramwise_cfg=_base_.row_rates)
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
