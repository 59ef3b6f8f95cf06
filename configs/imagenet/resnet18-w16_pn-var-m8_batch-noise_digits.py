# Classifier of the table of batch noise: PN with the noise of the variance of each 8 images.
_base_ = './resnet18-w16_pn_batch-noise_digits.py'

model = dict(backbone=dict(norm_cfg=dict(noise='var', virtual_batch_size=8)))
