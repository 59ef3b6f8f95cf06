# ISW by the recipe of IBN-Net's Table 6, at digits scale, trained by night.
_base_ = ['../_base_/rows/fcn_isw.py', '../_base_/scales/digits_ibn_gta5.py']

# As large a part of the training as at full scale on GTA5.
custom_hooks = [*_base_.custom_hooks, dict(type='ISWHook', begin=280, num_batches=50)]
model = dict(**_base_.digits_model, data_preprocessor=_base_.padding)
model['backbone'].init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth'
