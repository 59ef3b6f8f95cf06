# Detector of the table of batch noise, PN at 2 images a batch, with the gamma decay of 2.
_base_ = './faster-rcnn_r18-w32_fpn_pn_batch-noise_digits.py'

custom_hooks = [*_base_.custom_hooks, dict(type='GammaDecayHook', samples=2)]
