# The rows of Table 4, and others of Mask R-CNN, at digits scale.
_base_ = [
    '../models/digits-scale_mask-rcnn.py',
    '../datasets/digits-scale_instance.py',
    '../schedules/digits-scale_detection_2x.py',
]
