# GW on ImageNet; published top-1 of ResNet-50 (256 images, 100 epochs) 77.72 (BN 76.23).
#
# Released code: GW at the stem's norm and after the 3x3 convolutions, BN elsewhere. 64 groups, as
# in its detectors.
_base_ = ['./resnet_bn.py', './league_gw.py']

model = dict(backbone=_base_.backbone)
