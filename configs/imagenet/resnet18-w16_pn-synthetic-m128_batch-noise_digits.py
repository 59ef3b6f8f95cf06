# Classifier of the table of batch noise: PN with Gaussian noise of 128 samples.
# Its kurtosis is estimated as often as that of gamma decay.
_base_ = './resnet18-w16_pn_batch-noise_digits.py'

model = dict(backbone=dict(norm_cfg=dict(noise='both', samples=128)))
custom_hooks = [*_base_.custom_hooks, dict(type='PopulationHook', interval=100, num_batches=8)]
