# GW on ImageNet; published top-1 of ResNet-50 (256 images, 100 epochs) 77.72 (BN 76.23).
#
# Released code: GW at the stem's norm and after the 3x3 convolutions, BN elsewhere. 64 groups, as
# in its detectors.
_base_ = './resnet_bn.py'

where = ('bn1', 'layer[1-4].*.bn2')
model = dict(
    backbone=dict(
        type='NormPlacement',
        model_type='ResNet',
        norms=[dict(where=place, norm_cfg=dict(type='GW', num_groups=64)) for place in where],
    ),
)
