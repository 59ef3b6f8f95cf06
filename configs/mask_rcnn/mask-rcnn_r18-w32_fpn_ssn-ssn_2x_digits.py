# Mask R-CNN+FPN, 2x schedule, SSN/SSN (in no table), at digits scale.
_base_ = ['../_base_/rows/mask-rcnn_ssn-ssn.py', '../_base_/scales/digits_mask-rcnn.py']

model = _base_.digits_model
model.backbone.norm_cfg = _base_.digits_sn
model.neck.norm_cfg = model.roi_head.bbox_head.norm_cfg = _base_.digits_sn
model.roi_head.mask_head.norm_cfg = _base_.digits_sn
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_ssn_1xb32_digits/epoch_9.pth'
optim_wrapper = dict(paramwise_cfg=_base_.row_rates)
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
