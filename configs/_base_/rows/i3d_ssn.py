# SSN at every norm of the I3D ResNet-50 of Table 6; in no table.
# Its recipe for the ratios is explained in docs/ssn.md.
_base_ = './i3d_bn.py'

# momentum: the released code keeps 0.997 of the old value.
model = dict(backbone=dict(norm_cfg=dict(type='SSN', momentum=0.003)))

# The released recipe: for the ratios a tenth of the learning rate, no weight decay, a gradient
# clipped at a norm of 1, and a radius that grows to 1 with the progress of training.
row_rates = dict(ratio_lr_mult=0.1, ratio_decay_mult=0.0)
row_hooks = [dict(type='SSNRadiusHook'), dict(type='RatioGradClipHook', max_norm=1.0)]
