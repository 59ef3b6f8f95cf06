# SSN with the released ImageNet weights of (8,2), which were trained with the released statistics,
# the released recipe of its ratios, and momentum as for SN.
_base_ = './practice_ssn.py'

backbone = dict(norm_cfg=dict(momentum=0.003, released_statistics=True))
weights = dict(type='ReleasedPretrained', checkpoint='checkpoints/resnet50v1_ssn_8x2.pth')
