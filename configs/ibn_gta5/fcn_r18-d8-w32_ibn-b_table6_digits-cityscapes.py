# IBN-Net's Table 6, row IBN-Net50-b, at digits scale, trained by day.
_base_ = ['../_base_/rows/fcn_ibn-b.py', '../_base_/scales/digits_ibn_cityscapes.py']

model = dict(**_base_.digits_model, data_preprocessor=_base_.padding)
model['backbone'].init_cfg.checkpoint = 'work_dirs/resnet18-w32_ibn-b_1xb32_digits/epoch_9.pth'
