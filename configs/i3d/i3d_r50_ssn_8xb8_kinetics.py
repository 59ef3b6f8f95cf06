# Table 6 with SSN, 8 GPUs x 8 clips, at full scale.
_base_ = ['../_base_/rows/i3d_ssn.py', '../_base_/scales/kinetics.py']

# The released ImageNet ResNet50v1+SSN (8,2), as it is or converted to our names; it was trained
# with the released statistics. The released network pools its stem without padding; mmaction2's is
# kept.
model = dict(
    backbone=dict(
        norm_cfg=dict(released_statistics=True),
        init_cfg=dict(type='ReleasedPretrained', checkpoint='checkpoints/resnet50v1_ssn_8x2.pth'),
    ),
)
optim_wrapper = dict(paramwise_cfg=_base_.row_rates)
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
