# Mask R-CNN+FPN, 2x schedule, IBN-a/– (in no table), at digits scale.
_base_ = ['../_base_/rows/mask-rcnn_ibn-a.py', '../_base_/scales/digits_mask-rcnn.py']

model = _base_.digits_model
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_ibn-a_1xb32_digits/epoch_9.pth'
