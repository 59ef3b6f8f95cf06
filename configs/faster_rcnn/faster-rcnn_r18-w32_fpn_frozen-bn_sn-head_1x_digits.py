# Table 3, row BN†/SN, at digits scale.
_base_ = [
    '../_base_/rows/faster-rcnn_frozen-bn_sn-head.py',
    '../_base_/scales/digits_faster-rcnn.py',
]

model = _base_.digits_model
model.neck.norm_cfg = _base_.digits_sn
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth'
