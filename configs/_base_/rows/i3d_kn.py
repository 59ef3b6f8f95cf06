# KN at every norm of the I3D ResNet-50 of Table 6; in no table.
#
# Predictions go through 3D convolutions as through 2D ones (docs/kn.md). Gain and transition are
# this project's. tools/train.py adds the hook that links the layers.
_base_ = './i3d_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='KN')))
