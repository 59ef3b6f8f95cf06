# IBN-Net-b: the backbone that the IBN-b rows of the cross-domain table start from.
#
# Released code: instance norm in the stem and after the addition in the last block of the first two
# stages, BN elsewhere. Unlike it, the last gamma of each block starts at 0, as in the BN rows here.
_base_ = './resnet_bn.py'

model = dict(backbone=dict(type='IBNResNet', ibn_cfg=('b', 'b', None, None)))
