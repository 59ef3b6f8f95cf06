# IBN-Net, Table 6, trained on GTA5. Row and recipe, and what is unknown of them:
_base_ = [
    '../_base_/rows/fcn_resnet.py',
    '../_base_/datasets/gta5_ibn-rows.py',
    '../_base_/schedules/ibn_segmentation-rows.py',
]

custom_imports = dict(imports=['normplug', 'normplug.datasets'])
model = dict(
    data_preprocessor=_base_.padding,
    # Unknown: what the published row starts from.
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
)
