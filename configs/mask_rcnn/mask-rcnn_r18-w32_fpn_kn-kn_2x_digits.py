# Mask R-CNN+FPN, 2x schedule, KN/KN (in no table), at digits scale.
_base_ = ['../_base_/rows/mask-rcnn_kn-kn.py', '../_base_/scales/digits_mask-rcnn.py']

model = _base_.digits_model
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_kn_1xb32_digits/epoch_9.pth'
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
