# IBN-Net's Table 2, row IBN-Net-a.
#
# Published top-1 error: ResNet-50 22.54 (BN 24.27), ResNet-101 21.39 (BN 22.48).
# Released code: IBN at the first norm of each block but of the last stage, BN elsewhere. Unlike it,
# the last gamma of each block starts at 0, as in the BN rows here.
_base_ = './resnet_bn.py'

model = dict(backbone=dict(type='IBNResNet', ibn_cfg=('a', 'a', 'a', None)))
