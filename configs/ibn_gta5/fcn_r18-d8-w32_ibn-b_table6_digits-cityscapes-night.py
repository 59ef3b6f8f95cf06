# IBN-Net's Table 6, row IBN-Net50-b, at digits scale, trained by night.
_base_ = [
    '../_base_/rows/fcn_ibn-b.py',
    '../_base_/models/digits-scale_segmentation-rows.py',
    '../_base_/datasets/digits-scale_gta5_ibn-rows.py',
    '../_base_/schedules/digits-scale_ibn_segmentation-rows.py',
]

model = dict(**_base_.digits_model, data_preprocessor=_base_.padding)
model['backbone']['init_cfg'].update(
    checkpoint='work_dirs/resnet18-w32_ibn-b_1xb32_digits/epoch_6.pth'
)
