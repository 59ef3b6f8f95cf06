# SW where the released code has it (stage_with_sw): the stem's norm and the first norm of each
# basic block, but of the last stage; BN elsewhere. 16 channels a group, BW and IW, as there.
where = ('bn1', 'layer[1-3].*.bn1')
backbone = dict(
    type='NormPlacement',
    model_type='ResNet',
    norm_cfg=dict(type='BN'),
    norms=[dict(where=place, norm_cfg=dict(type='SW')) for place in where],
)
