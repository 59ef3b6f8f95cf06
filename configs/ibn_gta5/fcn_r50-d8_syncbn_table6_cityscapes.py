# IBN-Net, Table 6, trained on Cityscapes. Row and recipe, and what is unknown of them:
_base_ = ['../_base_/rows/fcn_resnet.py', '../_base_/scales/ibn_cityscapes.py']

model = dict(
    data_preprocessor=_base_.padding,
    # Unknown: what the published row starts from.
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
)
