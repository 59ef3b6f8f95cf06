# Table 3, row BN†/GN, at full scale, from ImageNet weights with BN (torchvision;
# unknown: those of the published row).
_base_ = ['../_base_/rows/faster-rcnn_frozen-bn_gn-head.py', '../_base_/scales/coco_faster-rcnn.py']
