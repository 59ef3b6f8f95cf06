# Table 4, row BN†/–, at digits scale.
_base_ = ['../_base_/rows/mask-rcnn_frozen-bn.py', '../_base_/scales/digits_mask-rcnn.py']

model = _base_.digits_model
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth'
