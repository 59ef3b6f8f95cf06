# IBN-Net's Table 6, row ResNet50, at digits scale, trained by day.
_base_ = ['../_base_/rows/fcn_resnet.py', '../_base_/scales/digits_ibn_cityscapes.py']

model = dict(**_base_.digits_model, data_preprocessor=_base_.padding)
model['backbone'].init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth'
