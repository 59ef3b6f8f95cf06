# IBN-Net-a in the I3D ResNet-50 of Table 6; in no table.
#
# IBN at the first norm of each block of the first three stages, as in the released 2D code; BN
# elsewhere. Instance norm is over time and space: it removes what a clip's frames have in common.
_base_ = './i3d_bn.py'

model = dict(
    backbone=dict(
        type='NormPlacement',
        model_type='ResNet3d',
        norms=[dict(where='layer[1-3].*.conv1.bn', norm_cfg=dict(type='IBN'))],
    ),
)
