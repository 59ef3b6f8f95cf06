# Table 3, row GN/GN, at digits scale.
_base_ = ['../_base_/rows/faster-rcnn_gn-gn.py', '../_base_/scales/digits_faster-rcnn.py']

model = _base_.digits_model
model.backbone.norm_cfg = _base_.digits_gn
model.neck.norm_cfg = model.roi_head.bbox_head.norm_cfg = _base_.digits_gn
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_gn_1xb32_digits/epoch_9.pth'
