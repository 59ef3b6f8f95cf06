# Table of batch noise, PN at 1 image per GPU, with the gamma decay of 1, at full scale. Stem and
# first stage are frozen and have none.
_base_ = './faster-rcnn_r50_fpn_pn_b1_1x_coco.py'

custom_hooks = [*_base_.custom_hooks, dict(type='GammaDecayHook', samples=1)]
