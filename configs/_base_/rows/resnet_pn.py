# PN: population statistics in training, a running average that is slow enough to be a constant.
#
# Unknown: recipe, momentum and how long the first iterations take batch statistics; the recipe is
# BN's, the other two are this project's defaults (docs/batch_noise.md).
_base_ = './resnet_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='PN')))
