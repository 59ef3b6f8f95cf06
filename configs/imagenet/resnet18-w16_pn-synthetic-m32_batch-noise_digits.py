# Classifier of the table of batch noise: PN with Gaussian noise of 32 samples, for each 32
# images. Its kurtosis is estimated as often as that of gamma decay.
_base_ = './resnet18-w16_pn_batch-noise_digits.py'

model = dict(backbone=dict(norm_cfg=dict(noise='both', samples=32, virtual_batch_size=32)))
custom_hooks = [*_base_.custom_hooks, dict(type='PopulationHook', interval=100, num_batches=8)]
