# ISW, trained on Cityscapes by the recipe of IBN-Net's Table 6. Row and recipe, and what is unknown
# of them:
_base_ = ['../_base_/rows/fcn_isw.py', '../_base_/scales/ibn_cityscapes.py']

# 6 epochs of 2975 images, 8 a step.
custom_hooks = [*_base_.custom_hooks, dict(type='ISWHook', begin=2231)]
model = dict(
    data_preprocessor=_base_.padding,
    # ImageNet weights of the plain network, as released.
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
)
