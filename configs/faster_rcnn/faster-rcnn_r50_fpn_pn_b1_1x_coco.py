# Table of batch noise, PN at 1 image per GPU, at full scale, from ImageNet weights with BN
# (torchvision). In evaluation PN is BN. It warms up if they count no batches.
_base_ = ['../_base_/rows/faster-rcnn_pn.py', '../_base_/scales/coco_faster-rcnn_b1.py']
