# The rows of Table 5 on Cityscapes at full scale.
_base_ = [
    '../datasets/cityscapes_segmentation-rows.py',
    '../schedules/cityscapes_segmentation-rows.py',
]
