# Rows BN of the ImageNet tables by batch and of the comparison BN/GN/SN/KN; IBN-Net's baseline.
#
# Published top-1: (8,32) 76.4, (8,16) 76.3, (8,8) 75.2 (75.5 in SSN's table), (8,4) 72.7,
# (8,2) 65.3, (1,32) 76.5, (1,16) 76.2, (1,8) 75.4; IBN-Net's ResNet-50 75.73, ResNet-101 77.52.
# Unknown: the recipe of the BN rows in SN's and SSN's tables. Here it is
# mmpretrain's standard, as in IBN-Net: no dropout, no lighting.
_base_ = 'mmpretrain::_base_/models/resnet50.py'

# The last gamma of each block starts at 0, as in SN's recipe, so that rows differ in norms only;
# in IBN-Net's released code it starts at 1.
model = dict(backbone=dict(norm_cfg=dict(type='BN'), zero_init_residual=True))
