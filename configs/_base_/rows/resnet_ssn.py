# Rows SSN of the ImageNet table by batch.
#
# Published top-1: (8,32) 77.2, (8,16) 77.0, (8,8) 76.8, (8,4) 76.1, (8,2) 75.9.
# Released code: as SN, 0.997 of the running statistics are kept. Not taken over: its stem's maximum
# pooling without padding.
_base_ = './resnet_sn.py'

model = dict(backbone=dict(norm_cfg=dict(type='SSN', momentum=0.003)))

# Released code: for the ratios a tenth of the learning rate, no weight decay, a gradient clipped at
# a norm of 1, and a radius that grows to 1 with the progress of training.
ssn_paramwise = dict(ratio_lr_mult=0.1, ratio_decay_mult=0.0)
ssn_hooks = [dict(type='SSNRadiusHook'), dict(type='RatioGradClipHook', max_norm=1.0)]
