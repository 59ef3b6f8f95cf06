# Rows GN of the ImageNet tables by batch and of the comparison BN/GN/SN/KN.
#
# Published top-1: (8,32) 75.9, (8,16) 75.8, (8,8) 76.0, (8,4) 75.8, (8,2) 75.9, (8,1) 75.5.
# Unknown: the recipe. It is mmpretrain's standard here, as for BN.
_base_ = './resnet_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=32)))
