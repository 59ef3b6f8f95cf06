# IBN-Net, Table 6, trained on GTA5. Row and recipe, and what is unknown of them:
_base_ = ['../_base_/rows/fcn_resnet.py', '../_base_/scales/ibn_gta5.py']

custom_imports = dict(imports=['normplug', 'normplug.datasets'])
model = dict(
    data_preprocessor=_base_.padding,
    # Unknown: what the published row starts from.
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
)
