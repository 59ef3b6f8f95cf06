# Instance selective whitening (RobustNet, CVPR 2021): IBN-Net-b whose instance norms have no affine
# parameters, and a loss on their correlations. Published, of a later paper's table, mIoU trained on
# GTA5, tested on Cityscapes, with DeepLabV3+ on ResNet-50: BN 28.95, IBN-b 33.85, ISW 36.58. That
# is another network, and another recipe, than this one: IBN-Net's FCN, with its weights and rates.
#
# Our reading: the transforms that make the photometric copies (mmseg's), and the masks after as
# many epochs as published, 6, although IBN-Net's training is longer.
_base_ = './fcn_resnet.py'

model = dict(backbone=dict(type='IBNResNet', ibn_cfg=('isw', 'isw', None, None)))
