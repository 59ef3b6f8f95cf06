# The rows of Table 5 on Cityscapes at digits scale.
_base_ = [
    '../models/digits-scale_segmentation-rows.py',
    '../datasets/digits-scale_cityscapes_segmentation-rows.py',
    '../schedules/digits-scale_cityscapes_segmentation-rows.py',
]
