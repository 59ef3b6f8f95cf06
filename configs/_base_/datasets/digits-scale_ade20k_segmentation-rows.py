# The rows of ADE20K at digits scale: `python tools/make_digits.py --formats ade`. Sides are to 160,
# a quarter more than on disk, as the published ones to 450. No flip: a mirrored digit is another
# sign.
_base_ = ['./ade20k_segmentation-rows.py', './digits_classes.py']

longest = 256
dataset = dict(
    type='BaseSegDataset',
    data_root='work_dirs/data/digits/ade/',
    img_suffix='.jpg',
    seg_map_suffix='.png',
    reduce_zero_label=True,
    metainfo=dict(classes=_base_.classes, palette=_base_.palette),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scales=[104, 136, 160, 184, 208], max_size=longest)
train_pipeline[3].update(prob=0.0)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=160, max_size=longest)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'][0] = [
    dict(type='ResizeShortestEdge', scale=side, max_size=longest) for side in (104, 144, 176, 216)
]

loading = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loading, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(**loading, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
