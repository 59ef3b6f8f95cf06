# ImageNet-1k with the augmentation of SSN's released code: that of SN, colours jittered by 0.4, and
# in the last 5 of 100 epochs a crop at random of the picture resized. Not known: whether it is
# flipped there; it is here, as in SN's.
_base_ = './imagenet-rows_lighting.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', to_float32=True),
            dict(type='RandomResizedCrop', scale=224),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            # Of floating-point pixels, which only this backend takes.
            dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, backend='cv2'),
            _base_.lighting,
            dict(type='PackInputs'),
        ]
    )
)

last_epochs = dict(
    schedule=[
        dict(
            action_epoch=96,
            train_pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='ResizeEdge', scale=256, edge='short'),
                dict(type='RandomCrop', crop_size=224),
                dict(type='RandomFlip', prob=0.5, direction='horizontal'),
                dict(type='PackInputs'),
            ],
        )
    ],
)
