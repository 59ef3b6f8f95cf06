# Table 6 with IBN-a, 8 GPUs x 8 clips, at full scale.
_base_ = ['../_base_/rows/i3d_ibn-a.py', '../_base_/scales/kinetics.py']

# The released ImageNet ResNet50-IBN-a, as it is or converted to our names.
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='ReleasedPretrained', checkpoint='checkpoints/resnet50_ibn_a-d9d0bb7b.pth'
        ),
    ),
)
