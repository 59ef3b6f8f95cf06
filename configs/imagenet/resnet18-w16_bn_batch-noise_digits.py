# Classifier of the table of batch noise: BN, statistics of all 128 images.
_base_ = ['../_base_/rows/resnet_bn.py', '../_base_/scales/digits_batch-noise.py']

model = _base_.digits_model
