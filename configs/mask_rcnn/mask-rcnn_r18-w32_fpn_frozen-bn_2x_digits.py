# Table 4, row BN†/–, at digits scale.
_base_ = [
    '../_base_/rows/mask-rcnn_frozen-bn.py',
    '../_base_/models/digits-scale_mask-rcnn.py',
    '../_base_/datasets/digits-scale_instance.py',
    '../_base_/schedules/digits-scale_detection_2x.py',
]

model = _base_.digits_model
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_6.pth'
