# Detector of the league, GN, at full scale.
_base_ = ['../_base_/rows/practice_gn.py', '../_base_/scales/league_coco.py']

# Detectron's ResNet-50 with GN takes unscaled BGR.
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        **_base_.backbone, init_cfg=dict(checkpoint='open-mmlab://detectron/resnet50_gn')
    ),
)
