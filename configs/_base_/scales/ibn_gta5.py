# The rows of IBN-Net's Table 6 that train on GTA5, at full scale.
_base_ = ['../datasets/gta5_ibn-rows.py', '../schedules/ibn_segmentation-rows.py']
