# Table 6, row SN: I3D ResNet-50 on Kinetics-400, clips of 32 frames; published top-1 / top-5: 8
# clips per GPU 73.5 / 91.3, 4 clips 73.3 / 91.2. Like the row BN, with SN at every norm: all its
# statistics are over time and space (released code of SN in 3D).
_base_ = './i3d_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='SN')))
