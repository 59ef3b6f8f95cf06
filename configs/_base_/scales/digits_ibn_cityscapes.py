# The rows of IBN-Net's Table 6 that train on Cityscapes, at digits scale.
_base_ = [
    '../models/digits-scale_segmentation-rows.py',
    '../datasets/digits-scale_cityscapes_ibn-rows.py',
    '../schedules/digits-scale_ibn_segmentation-rows.py',
]
