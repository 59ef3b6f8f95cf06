# IBN-Net, Table 6, row IBN-Net50-b; published mIoU / pixel accuracy, trained on → tested on:
# Cityscapes → Cityscapes 67.0 / 94.3, → GTA5 37.9 / 78.8;
# GTA5 → GTA5 64.2 / 92.4, → Cityscapes 29.6 / 66.8.
_base_ = './fcn_resnet.py'

# The released IBN-Net-b.
model = dict(backbone=dict(type='IBNResNet', ibn_cfg=('b', 'b', None, None)))
