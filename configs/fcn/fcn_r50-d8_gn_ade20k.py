# Table 5 on ADE20K. Row and recipe, and what is unknown of them:
_base_ = ['../_base_/rows/fcn_gn.py', '../_base_/scales/ade20k.py']

model = dict(
    # Detectron's ResNet-50 with GN, which takes unscaled BGR; the released code for ADE20K starts
    # from one of its own.
    data_preprocessor=dict(
        **_base_.padding, mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False
    ),
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron/resnet50_gn')
    ),
    decode_head=dict(**_base_.loss_at_an_eighth, num_classes=150),
    auxiliary_head=dict(**_base_.loss_at_an_eighth, num_classes=150),
)
