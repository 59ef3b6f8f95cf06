# Classifier of the table of batch noise: PN with Gaussian noise of 2 samples, for each 2 images.
_base_ = './resnet18-w16_pn_batch-noise_digits.py'

model = dict(backbone=dict(norm_cfg=dict(noise='both', samples=2, virtual_batch_size=2)))
