# The rows of Cityscapes, IBN-Net's Table 6, at digits scale:
# `python tools/make_digits.py --formats cityscapes`. A quarter larger than on disk: at output
# stride 8 a stroke is less than a cell wide. No flip: a mirrored digit is another sign.
_base_ = './cityscapes_ibn-rows.py'

classes = (
    'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'photograph',
)  # fmt: skip
# Any colours that differ: mmseg's visualizer needs one a class.
palette = [[(97 * i) % 256, (57 * i + 80) % 256, (31 * i + 160) % 256] for i in range(11)]

crop_size = (96, 96)
padding = dict(size=crop_size)
dataset = dict(
    type='BaseSegDataset',
    data_root='work_dirs/data/digits/cityscapes/',
    img_suffix='_leftImg8bit.png',
    seg_map_suffix='_gtFine_labelTrainIds.png',
    metainfo=dict(classes=classes, palette=palette),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=(160, 160))
train_pipeline[3].update(crop_size=crop_size)
train_pipeline[4].update(prob=0.0)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(160, 160))

# mmseg's mirrors.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (120, 160, 200)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

loading = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loading, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(**loading, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
