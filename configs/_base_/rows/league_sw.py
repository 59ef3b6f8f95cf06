# SW in a ResNet-50 where the released code has it: the stem's norm and, in every second block of
# the first three stages, that of the 3x3 convolution; BN elsewhere. From our own ImageNet weights.
# In the digits' ResNet-18 every block has it: whitening_sw.py.
where = ('bn1', 'layer[1-3].*[13579].bn2')
backbone = dict(
    type='NormPlacement',
    model_type='ResNet',
    norm_cfg=dict(type='BN'),
    norms=[dict(where=place, norm_cfg=dict(type='SW')) for place in where],
)
weights = dict(checkpoint='work_dirs/resnet50_sw_8xb32_imagenet/epoch_100.pth', prefix='backbone.')
