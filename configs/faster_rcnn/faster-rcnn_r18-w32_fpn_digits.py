# What the digits rows of this folder share; a row sets the norms and the weights it starts from.
_base_ = [
    '../_base_/models/faster-rcnn_r18-w32_fpn_digits.py',
    '../_base_/datasets/digits_detection.py',
    '../_base_/schedules/digits_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/resnet18-w32_bn_digits/epoch_3.pth',
            prefix='backbone.',
        ),
    ),
)
default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'))
randomness = dict(seed=0)
