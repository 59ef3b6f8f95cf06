# Table 3, row BN†/–, at full scale, from ImageNet weights with BN (torchvision;
# unknown: those of the published row).
_base_ = [
    '../_base_/rows/faster-rcnn_frozen-bn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/detection_1x.py',
]
