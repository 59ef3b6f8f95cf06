# SN with the released ImageNet weights of (8,2), which were trained with the released statistics.
# momentum: the released code of detection and segmentation keeps 0.997 of the old value.
_base_ = './practice_sn.py'

backbone = dict(norm_cfg=dict(momentum=0.003, released_statistics=True))
weights = dict(type='ReleasedPretrained', checkpoint='checkpoints/resnet50v1_sn_8x2.pth')
