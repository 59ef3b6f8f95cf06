# IBN-Net-a with BN in its other half and elsewhere (mmseg's base has SyncBN), and its released
# ImageNet weights.
_base_ = './practice_ibn-a.py'

backbone = dict(norm_cfg=dict(type='BN'))
weights = dict(type='ReleasedPretrained', checkpoint='checkpoints/resnet50_ibn_a-d9d0bb7b.pth')
