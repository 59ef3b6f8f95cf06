# Table 5 on Cityscapes. Row and recipe, and what is unknown of them:
_base_ = ['../_base_/rows/fcn_syncbn.py', '../_base_/scales/cityscapes.py']

model = dict(
    data_preprocessor=_base_.padding,
    # The code for ADE20K starts from an ImageNet model with SyncBN of its own; torchvision's has
    # BN.
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
)
