# Mask R-CNN+FPN, 2x schedule, KN/KN (in no table), at full scale.
# From ImageNet weights with BN (torchvision): there are no released ones with KN.
_base_ = ['../_base_/rows/mask-rcnn_kn-kn.py', '../_base_/scales/coco_mask-rcnn.py']

custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
