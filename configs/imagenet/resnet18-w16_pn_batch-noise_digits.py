# Classifier of the table of batch noise: PN without noise.
_base_ = ['../_base_/rows/resnet_pn.py', '../_base_/scales/digits_batch-noise.py']

model = _base_.digits_model
