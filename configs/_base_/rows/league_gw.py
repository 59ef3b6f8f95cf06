# GW in a ResNet-50 where the released code has it: the stem's norm and those of the 3x3
# convolutions, of 64 groups; BN elsewhere, trained like that of the row BN (in the published
# detectors it is frozen). From our own ImageNet weights. In the digits' ResNet-18: whitening_gw.py.
where = ('bn1', 'layer[1-4].*.bn2')
backbone = dict(
    type='NormPlacement',
    model_type='ResNet',
    norm_cfg=dict(type='BN'),
    norms=[dict(where=place, norm_cfg=dict(type='GW', num_groups=64)) for place in where],
)
weights = dict(checkpoint='work_dirs/resnet50_gw_8xb32_imagenet/epoch_100.pth', prefix='backbone.')
