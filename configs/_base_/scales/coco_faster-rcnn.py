# The rows of Table 3 at full scale.
_base_ = ['mmdet::_base_/datasets/coco_detection.py', '../schedules/detection_1x.py']
