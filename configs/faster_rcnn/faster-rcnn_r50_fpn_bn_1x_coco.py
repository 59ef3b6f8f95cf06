# Table of batch noise, trained BN at 2 images per GPU, at full scale, from ImageNet weights with BN
# (torchvision).
_base_ = ['../_base_/rows/faster-rcnn_bn.py', '../_base_/scales/coco_faster-rcnn.py']
