# GhostBN in the I3D ResNet-50 of Table 6: BN with statistics of each 2 clips; in no table.
# Against the row BN it shows what statistics of fewer clips do while the gradient stays the same.
_base_ = './i3d_bn.py'

model = dict(backbone=dict(norm_cfg=dict(type='GhostBN', virtual_batch_size=2)))
