# ADE20K as the released code of Table 5 reads it: short side drawn from five, long side up to 1000,
# flip, no crop; a batch is padded to a multiple of 8.
#
# Not here: both images of a GPU of one orientation. mmseg has no such sampler; it costs padding,
# which counts in no loss.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

padding = dict(size_divisor=8)  # of model.data_preprocessor
# Of both heads: labels scaled down by 8, to the size of the logits; the average is over those that
# count (mmseg's own is over all).
loss_at_an_eighth = dict(
    type='LabelStrideFCNHead', label_stride=8, loss_decode=dict(avg_non_ignore=True)
)
longest = 1000

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(
        type='RandomChoiceResize',
        scales=[300, 375, 450, 525, 575],
        resize_type='ResizeShortestEdge',
        max_size=longest,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=450, max_size=longest),
    # After the resizing: predictions are compared at the image's own size.
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
# Softmax averaged over four sizes, no flip.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='ResizeShortestEdge', scale=side, max_size=longest)
                for side in (300, 400, 500, 600)
            ],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
