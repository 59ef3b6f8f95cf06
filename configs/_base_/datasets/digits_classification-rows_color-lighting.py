# The augmentation of SSN's released code on digits, without its strength, as for SN.
_base_ = './digits_classification-rows_lighting.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', to_float32=True),
            _base_.whole_crop,
            _base_.no_flip,
            dict(type='ColorJitter', brightness=0.0, contrast=0.0, saturation=0.0, backend='cv2'),
            _base_.lighting,
            dict(type='PackInputs'),
        ]
    )
)

last_epochs = dict(
    schedule=[
        dict(
            action_epoch=9,
            train_pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='ResizeEdge', scale=48, edge='short'),
                dict(type='RandomCrop', crop_size=48),
                _base_.no_flip,
                dict(type='PackInputs'),
            ],
        )
    ],
)
