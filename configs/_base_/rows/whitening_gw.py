# GW where the released code has it: the stem's norm and the first norm of each basic block; BN
# elsewhere. 32 groups, half of its detectors', for channels half as many.
where = ('bn1', 'layer[1-4].*.bn1')
backbone = dict(
    type='NormPlacement',
    model_type='ResNet',
    norm_cfg=dict(type='BN'),
    norms=[dict(where=place, norm_cfg=dict(type='GW', num_groups=32)) for place in where],
)
