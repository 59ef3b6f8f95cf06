# IBN-Net, Table 6, row IBN-Net50-a; published mIoU / pixel accuracy, trained on → tested on:
# Cityscapes → Cityscapes 69.1 / 94.4, → GTA5 32.5 / 71.4;
# GTA5 → GTA5 64.8 / 92.5, → Cityscapes 26.0 / 60.9.
_base_ = './fcn_resnet.py'

# The released IBN-Net-a.
model = dict(backbone=dict(type='IBNResNet', ibn_cfg=('a', 'a', 'a', None)))
