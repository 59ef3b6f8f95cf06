# Table 3, row SN/SN: Faster R-CNN+FPN, ResNet-50, COCO, 1x schedule; published AP 39.3.
#
# SN stands at every norm of the backbone and after every convolution of the FPN, as in the
# released detection code. Unknown: the box head of the published row (the code of its numbers was
# never released). The released Faster R-CNN configs have the plain 2-fc head of mmdet's base.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['normplug'])

# released_statistics: the released ImageNet weights were trained with them.
# momentum: the released detection code keeps 0.997 of the old value.
norm_cfg = dict(type='SN', momentum=0.003, released_statistics=True)
model = dict(
    backbone=dict(
        norm_cfg=norm_cfg,
        norm_eval=False,
        # Released code, FREEZE_AT: 2. Stem and first stage keep their weights and statistics.
        frozen_stages=1,
        # The released ImageNet ResNet50v1+SN (8,2), as it is or converted to our names.
        init_cfg=dict(
            _delete_=True,
            type='ReleasedPretrained',
            checkpoint='checkpoints/resnet50v1_sn_8x2.pth',
        ),
    ),
    neck=dict(norm_cfg=norm_cfg),
)

# Released code: no decay for gamma and the logits; biases at twice the rate, without decay.
optim_wrapper = dict(
    constructor='NormOptimWrapperConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0, ratio_decay_mult=0.0, bias_lr_mult=2.0, bias_decay_mult=0.0
    ),
)
# Released code: linear warm-up from a third; mmdet's 1x is 12 epochs with drops at 8 and 11.
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]

default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'))
custom_hooks = [dict(type='SampleSeedHook'), dict(type='NonFiniteLossHook')]
