# Table 3, row BN†/GN, at digits scale.
_base_ = [
    '../_base_/rows/faster-rcnn_frozen-bn_gn-head.py',
    '../_base_/scales/digits_faster-rcnn.py',
]

model = _base_.digits_model
model.neck.norm_cfg = model.roi_head.bbox_head.norm_cfg = _base_.digits_gn
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth'
