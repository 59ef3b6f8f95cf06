# Cityscapes for Table 5. No code of it was released. Recalled from the paper and not verified:
# crops of 713x713, random scales, testing at 1, 1.25, 1.5 and 1.75 times the image. Unknown, hence
# mmseg's base: the range of the scales, flip and colour jitter. No flip in testing, as in the
# released code for ADE20K.
_base_ = 'mmseg::_base_/datasets/cityscapes.py'

crop_size = (713, 713)
padding = dict(size=crop_size)  # of model.data_preprocessor

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    # After the resizing: predictions are compared at the image's own size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale_factor=factor, keep_ratio=True)
                for factor in (1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
