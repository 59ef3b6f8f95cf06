# Classifier of the table of batch noise: GN.
_base_ = ['../_base_/rows/resnet_gn.py', '../_base_/scales/digits_batch-noise.py']

model = _base_.digits_model
model.backbone.norm_cfg = dict(num_groups=8)
