# Table 3, row GN/GN, at full scale, from ImageNet weights with GN.
_base_ = ['../_base_/rows/faster-rcnn_gn-gn.py', '../_base_/scales/coco_faster-rcnn.py']

# Unknown: what the published row starts from. Detectron's ResNet-50 with GN takes unscaled BGR.
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(init_cfg=dict(checkpoint='open-mmlab://detectron/resnet50_gn')),
)
