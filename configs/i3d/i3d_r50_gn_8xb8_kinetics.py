# Table 6, row GN, 8 GPUs x 8 clips, at full scale. Recipe, and what is unknown of it:
_base_ = ['../_base_/rows/i3d_gn.py', '../_base_/scales/kinetics.py']

# Detectron's ResNet-50 with GN, which takes unscaled BGR.
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=True),
    backbone=dict(init_cfg=dict(checkpoint='open-mmlab://detectron/resnet50_gn')),
)
