# The rows of Table 4, and others of Mask R-CNN, at full scale.
_base_ = ['mmdet::_base_/datasets/coco_instance.py', '../schedules/detection_2x.py']
