# The rows of IBN-Net's Table 6 that train on GTA5, at digits scale.
_base_ = [
    '../models/digits-scale_segmentation-rows.py',
    '../datasets/digits-scale_gta5_ibn-rows.py',
    '../schedules/digits-scale_ibn_segmentation-rows.py',
]
