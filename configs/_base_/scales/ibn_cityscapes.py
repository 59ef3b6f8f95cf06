# The rows of IBN-Net's Table 6 that train on Cityscapes, at full scale.
_base_ = ['../datasets/cityscapes_ibn-rows.py', '../schedules/ibn_segmentation-rows.py']
