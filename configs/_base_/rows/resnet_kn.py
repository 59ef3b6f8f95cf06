# Rows KN of the comparison BN/GN/SN/KN.
#
# Published top-1 (images for a gradient, for statistics): (256, 32) 76.8, (256, 4) 76.1.
# Unknown: the recipe, which is mmpretrain's standard here, and the gain. The default 0.9 is this
# project's (docs/kn.md). tools/train.py adds the hook that links the layers.
_base_ = './resnet_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='KN')))
