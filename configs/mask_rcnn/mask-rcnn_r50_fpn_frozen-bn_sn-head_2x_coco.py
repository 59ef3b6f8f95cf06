# Table 4, row BN†/SN, at full scale, from ImageNet weights with BN (torchvision).
_base_ = [
    '../_base_/rows/mask-rcnn_frozen-bn_sn-head.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/detection_2x.py',
]
