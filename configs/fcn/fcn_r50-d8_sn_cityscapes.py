# Table 5 on Cityscapes. Row and recipe, and what is unknown of them:
_base_ = ['../_base_/rows/fcn_sn.py', '../_base_/scales/cityscapes.py']

# released_statistics: the released ImageNet weights were trained with them.
# momentum: the released segmentation code keeps 0.997 of the old value.
norm_cfg = dict(momentum=0.003, released_statistics=True)
model = dict(
    # Scaled RGB, as in the released ImageNet code; that for ADE20K feeds unscaled BGR
    # (unknown: how these weights were trained).
    data_preprocessor=_base_.padding,
    backbone=dict(
        norm_cfg=norm_cfg,
        # The released ImageNet ResNet50v1+SN (8,2), as it is or converted to our names.
        init_cfg=dict(type='ReleasedPretrained', checkpoint='checkpoints/resnet50v1_sn_8x2.pth'),
    ),
    decode_head=dict(norm_cfg=norm_cfg, num_classes=19),
    auxiliary_head=dict(norm_cfg=norm_cfg, num_classes=19),
)
