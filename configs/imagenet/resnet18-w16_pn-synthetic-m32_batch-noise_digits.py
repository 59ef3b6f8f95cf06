# Classifier of the table of batch noise: PN with Gaussian noise of 32 samples, for each 32 images.
_base_ = './resnet18-w16_pn_batch-noise_digits.py'

model = dict(backbone=dict(norm_cfg=dict(noise='both', samples=32, virtual_batch_size=32)))
