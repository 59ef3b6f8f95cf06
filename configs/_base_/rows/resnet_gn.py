# Rows GN of the ImageNet tables by batch and of the comparison BN/GN/SN/KN.
#
# Published top-1: (8,32) 75.9, (8,16) 75.8, (8,8) 76.0, (8,4) 75.8, (8,2) 75.9, (8,1) 75.5,
# (1,32) 75.8, (1,16) 75.9, (1,8) 75.5: these differ from (8,4), (8,2) and (8,1) in nothing, as GN
# has no batch, and have no configs.
# Unknown: the recipe. It is mmpretrain's standard here, as for BN.
_base_ = './resnet_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=32)))
