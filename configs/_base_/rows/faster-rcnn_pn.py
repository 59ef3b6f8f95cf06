# The same with PN in BN's place. In the table of batch noise; no published number.
#
# Unknown: recipe, momentum and warm-up; the recipe is BN's, the other two are this project's
# defaults (docs/batch_noise.md).
_base_ = './faster-rcnn_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='PN')))
