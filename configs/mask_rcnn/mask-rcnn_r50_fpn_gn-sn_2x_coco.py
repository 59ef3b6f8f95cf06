# Table 4, row GN/SN, at full scale, from ImageNet weights with GN.
_base_ = ['../_base_/rows/mask-rcnn_gn-sn.py', '../_base_/scales/coco_mask-rcnn.py']

# The variance of the released layer, as in the row SN/SN.
released = dict(released_statistics=True)
# Unknown: what the published row starts from. Detectron's ResNet-50 with GN takes unscaled BGR.
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(init_cfg=dict(checkpoint='open-mmlab://detectron/resnet50_gn')),
    neck=dict(norm_cfg=released),
    roi_head=dict(bbox_head=dict(norm_cfg=released), mask_head=dict(norm_cfg=released)),
)
