# What the ADE-form rows of this folder share; a row sets the norms and the weights it starts from.
_base_ = [
    '../_base_/models/fcn_r18-d8-w32_digits.py',
    '../_base_/datasets/digits_ade.py',
    '../_base_/schedules/digits_segmentation.py',
    'mmseg::_base_/default_runtime.py',
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
randomness = dict(seed=0)
