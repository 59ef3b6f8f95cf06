# The rows of Table 5 on ADE20K at full scale.
_base_ = ['../datasets/ade20k_segmentation-rows.py', '../schedules/ade20k_segmentation-rows.py']
