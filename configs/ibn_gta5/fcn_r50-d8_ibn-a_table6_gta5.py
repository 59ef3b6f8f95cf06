# IBN-Net, Table 6, trained on GTA5. Row and recipe, and what is unknown of them:
_base_ = ['../_base_/rows/fcn_ibn-a.py', '../_base_/scales/ibn_gta5.py']

custom_imports = dict(imports=['normplug', 'normplug.datasets'])
model = dict(
    data_preprocessor=_base_.padding,
    # The released ImageNet weights, as they are.
    backbone=dict(
        init_cfg=dict(
            type='ReleasedPretrained', checkpoint='checkpoints/resnet50_ibn_a-d9d0bb7b.pth'
        ),
    ),
)
