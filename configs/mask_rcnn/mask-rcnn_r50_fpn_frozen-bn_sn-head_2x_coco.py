# Table 4, row BN†/SN, at full scale, from ImageNet weights with BN (torchvision;
# unknown: those of the published row).
_base_ = ['../_base_/rows/mask-rcnn_frozen-bn_sn-head.py', '../_base_/scales/coco_mask-rcnn.py']

# The variance of the released layer, as in the row SN/SN.
released = dict(released_statistics=True)
model = dict(
    neck=dict(norm_cfg=released),
    roi_head=dict(bbox_head=dict(norm_cfg=released), mask_head=dict(norm_cfg=released)),
)
