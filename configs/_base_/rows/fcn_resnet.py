# IBN-Net, Table 6, row ResNet50: FCN on the plain network; published mIoU / pixel accuracy,
# trained on → tested on: Cityscapes → Cityscapes 64.5 / 93.4, → GTA5 29.4 / 71.9;
# GTA5 → GTA5 61.0 / 91.5, → Cityscapes 22.2 / 53.5.
#
# Unknown, hence mmseg's base: whether BN was synchronized (here it is), the channels of the
# auxiliary head (256) and the dropout of both heads (0.1).
_base_ = '../models/fcn_r50-d8_segmentation-rows.py'
