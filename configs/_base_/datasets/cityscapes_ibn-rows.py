# Cityscapes for IBN-Net's Table 6, half as large as it is, which is near the size that is published
# for GTA5 (1024x563): else the domains would differ in scale too. Unknown, hence mmseg's base: the
# crop (512x1024, here the whole image) and the flip. Without mmseg's colour jitter, which the
# released ImageNet code does not have, and which would hide what a norm does across domains.
_base_ = 'mmseg::_base_/datasets/cityscapes.py'

crop_size = (512, 1024)
padding = dict(size=crop_size)  # of model.data_preprocessor
resize = dict(type='Resize', scale=(1024, 512), keep_ratio=False)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    resize,
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    # After the resizing: predictions are compared at the image's own size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
