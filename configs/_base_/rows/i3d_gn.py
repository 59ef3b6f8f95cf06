# Table 6, row GN: I3D ResNet-50 on Kinetics-400, clips of 32 frames; published top-1 / top-5: 8
# clips per GPU 73.0 / 90.6, 4 clips 72.8 / 90.6. Like the row BN, with GN at every norm: groups
# of channels over time and space.
_base_ = './i3d_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=32)))
