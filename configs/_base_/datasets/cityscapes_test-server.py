# The test set of Cityscapes, whose labels its test server keeps: nothing is scored, the predictions
# are written as the server takes them. `tools/test.py CONFIG CHECKPOINT --out FOLDER`.
server_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CityscapesDataset',
        data_root='data/cityscapes/',
        data_prefix=dict(img_path='leftImg8bit/test'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
            dict(type='PackSegInputs'),
        ],
    ),
)
server_tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale_factor=factor, keep_ratio=True)
                for factor in (1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type='PackSegInputs')],
        ],
    ),
]
server_evaluator = dict(type='CityscapesIoUMetric', format_only=True)
