# mmpretrain's ImageNet pipelines on digits of 64x64 pixels, one a picture, in folders by class:
# `python tools/make_digits.py --formats classification`.
#
# A crop keeps the whole picture, for a part of a digit can be another digit (of a 6 or a 9, say),
# and nothing is flipped, for a mirrored digit is another sign.
data_root = 'work_dirs/data/digits/classification/'

data_preprocessor = dict(
    num_classes=10, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
whole_crop = dict(
    type='RandomResizedCrop', scale=48, crop_ratio_range=(1.0, 1.0), aspect_ratio_range=(1.0, 1.0)
)
no_flip = dict(type='RandomFlip', prob=0.0, direction='horizontal')
train_pipeline = [dict(type='LoadImageFromFile'), whole_crop, no_flip, dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=48, edge='short'),
    dict(type='CenterCrop', crop_size=48),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix='train', pipeline=train_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix='val', pipeline=test_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
