# The augmentation of SN's released code on digits, up to the last epoch. Without the strength of
# its lighting: it is for a hundred epochs, and here it would set SN's nine apart from BN's and GN's.
_base_ = './digits_classification-rows.py'

# Values else as at full scale (imagenet-rows_lighting.py).
lighting = dict(
    type='Lighting',
    eigval=[55.4625, 4.7940, 1.1475],
    eigvec=[
        [-0.5836, -0.6948, 0.4203],
        [-0.5808, -0.0045, -0.8140],
        [-0.5675, 0.7192, 0.4009],
    ],
    alphastd=0.0,
    to_rgb=False,
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile', to_float32=True),
            _base_.whole_crop,
            _base_.no_flip,
            lighting,
            dict(type='PackInputs'),
        ]
    )
)

last_epochs = dict(
    type='SwitchRecipeHook',
    schedule=[
        dict(
            action_epoch=9,
            train_pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='ResizeEdge', scale=48, edge='short'),
                dict(type='CenterCrop', crop_size=48),
                _base_.no_flip,
                dict(type='PackInputs'),
            ],
        )
    ],
)
