# Table 4, row BN†/GN, at full scale, from ImageNet weights with BN (torchvision;
# unknown: those of the published row).
_base_ = ['../_base_/rows/mask-rcnn_frozen-bn_gn-head.py', '../_base_/scales/coco_mask-rcnn.py']
