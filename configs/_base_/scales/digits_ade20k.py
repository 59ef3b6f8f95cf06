# The rows of Table 5 on ADE20K at digits scale.
_base_ = [
    '../models/digits-scale_segmentation-rows.py',
    '../datasets/digits-scale_ade20k_segmentation-rows.py',
    '../schedules/digits-scale_ade20k_segmentation-rows.py',
]
