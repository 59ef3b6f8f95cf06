# The rows of Table 3 at digits scale.
_base_ = [
    '../models/digits-scale_faster-rcnn.py',
    '../datasets/digits-scale_detection.py',
    '../schedules/digits-scale_detection_1x.py',
]
