# Classifier of the table of batch noise: PN, with the gamma decay of statistics of 128 images.
_base_ = './resnet18-w16_pn_batch-noise_digits.py'

custom_hooks = [*_base_.custom_hooks, dict(type='GammaDecayHook', samples=128)]
