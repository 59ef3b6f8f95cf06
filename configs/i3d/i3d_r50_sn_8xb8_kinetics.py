# Table 6, row SN, 8 GPUs x 8 clips, at full scale. Recipe, and what is unknown of it:
_base_ = ['../_base_/rows/i3d_sn.py', '../_base_/scales/kinetics.py']

# The released ImageNet ResNet50v1+SN (8,2), as it is or converted to our names: the published row
# starts from SN of (8,2). It was trained with the released statistics. momentum: the released 3D
# layer keeps 0.997 of the old value.
model = dict(
    backbone=dict(
        norm_cfg=dict(momentum=0.003, released_statistics=True),
        init_cfg=dict(type='ReleasedPretrained', checkpoint='checkpoints/resnet50v1_sn_8x2.pth'),
    ),
)
