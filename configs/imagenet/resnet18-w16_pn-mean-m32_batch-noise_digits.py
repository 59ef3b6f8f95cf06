# Classifier of the table of batch noise: PN with the noise of the mean of each 32 images.
_base_ = './resnet18-w16_pn_batch-noise_digits.py'

model = dict(backbone=dict(norm_cfg=dict(noise='mean', virtual_batch_size=32)))
