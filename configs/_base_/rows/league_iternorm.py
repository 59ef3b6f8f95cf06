# IterNorm where its authors advise it, at the stem's norm, in one block; BN elsewhere. From our own
# ImageNet weights.
backbone = dict(
    type='NormPlacement',
    model_type='ResNet',
    norm_cfg=dict(type='BN'),
    norms=[dict(where='bn1', norm_cfg=dict(type='IterNorm'))],
)
weights = dict(
    checkpoint='work_dirs/resnet50_iternorm_8xb32_imagenet/epoch_100.pth', prefix='backbone.'
)
