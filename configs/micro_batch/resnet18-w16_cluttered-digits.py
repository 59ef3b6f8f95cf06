# What the normalizers of the micro-batch experiment share (docs/micro_batch.md); a leaf sets the
# norm, and tools/micro_batch.py the normalization batch and the seed.
_base_ = '../_base_/runtime.py'

default_scope = 'mmpretrain'

# Images whose statistics are taken together: the cells of the experiment.
normalization_batches = [1, 2, 4, 16]

# The arguments of DigitsSettings and SceneSettings. The data writer makes two pictures of each that
# is counted here, of half the side: 2000 and 1000 of 32x32 pixels. Against the defaults: more of a
# photograph in a picture, and light digits of little contrast to it.
data_root = 'work_dirs/data/micro_batch/'
task = dict(
    seed=0,
    train=1000,
    val=500,
    scene=dict(
        size=64,
        crop=(200, 380),
        gamma=1.8,
        lightness=((0.7, 1.0),),
        tint=0.1,
        contrast=0.12,
    ),
)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        num_stages=3,
        strides=(2, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        stem_channels=16,
        base_channels=16,
        # From blocks that begin as the identity, SGD learns nothing in so few iterations.
        zero_init_residual=False,
        norm_cfg=dict(type='BN'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
data_preprocessor = dict(
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='GaussianBlur', radius=0.7, prob=1.0),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,  # the command adds the folder of this task
        data_prefix='train',
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='val',
        pipeline=pipeline,
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))

max_iters = 1000
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=max_iters)
val_cfg = {}
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters),
]

# A run leaves nothing but its log: its figures go to the experiment's own file.
default_hooks = dict(checkpoint=None, logger=dict(type='LoggerHook', interval=100))
visualizer = dict(type='Visualizer', vis_backends=[])
