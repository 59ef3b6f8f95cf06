# Table 5 on ADE20K. Row and recipe, and what is unknown of them:
_base_ = ['../_base_/rows/fcn_syncbn.py', '../_base_/scales/ade20k.py']

model = dict(
    # Scaled RGB, as those weights take it; the released code feeds unscaled BGR.
    data_preprocessor=_base_.padding,
    # The released code starts from an ImageNet model with SyncBN of its own; torchvision's has BN.
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    decode_head=dict(**_base_.loss_at_an_eighth, num_classes=150),
    auxiliary_head=dict(**_base_.loss_at_an_eighth, num_classes=150),
)
