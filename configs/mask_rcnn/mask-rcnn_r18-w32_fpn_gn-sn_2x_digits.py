# Table 4, row GN/SN, at digits scale.
_base_ = ['../_base_/rows/mask-rcnn_gn-sn.py', '../_base_/scales/digits_mask-rcnn.py']

model = _base_.digits_model
model.backbone.norm_cfg = _base_.digits_gn
model.neck.norm_cfg = model.roi_head.bbox_head.norm_cfg = _base_.digits_sn
model.roi_head.mask_head.norm_cfg = _base_.digits_sn
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_gn_1xb32_digits/epoch_9.pth'
