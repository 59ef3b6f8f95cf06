# ImageNet-1k in data/imagenet, with the augmentation of SN's released code: mmpretrain's standard,
# and AlexNet's lighting. In its last 5 of 100 epochs that code takes the centre of the picture.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'

# Released: standard deviation 0.1. Values of the eigenvectors are the usual ones, of pixels up to
# 255; its rows stand in the order of the channels as they are read, BGR.
lighting = dict(
    type='Lighting',
    eigval=[55.4625, 4.7940, 1.1475],
    eigvec=[
        [-0.5836, -0.6948, 0.4203],
        [-0.5808, -0.0045, -0.8140],
        [-0.5675, 0.7192, 0.4009],
    ],
    alphastd=0.1,
    to_rgb=False,
)
train_pipeline = [
    # Lighting leaves the range of uint8, and mmpretrain's would wrap around.
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    lighting,
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

last_epochs = dict(
    type='SwitchRecipeHook',
    schedule=[
        dict(
            action_epoch=96,
            train_pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='ResizeEdge', scale=256, edge='short'),
                dict(type='CenterCrop', crop_size=224),
                dict(type='RandomFlip', prob=0.5, direction='horizontal'),
                dict(type='PackInputs'),
            ],
        )
    ],
)
