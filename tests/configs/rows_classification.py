"""The rows of the published classification tables: norms, and twins at digits scale."""

# (#GPUs, images per GPU) of the tables by batch.
BATCHES = {
    'bn': ('8x32', '8x16', '8x8', '8x4', '8x2', '1x32', '1x16', '1x8'),
    'gn': ('8x32', '8x16', '8x8', '8x4', '8x2', '8x1'),
    'sn': ('8x32', '8x16', '8x8', '8x4', '8x2', '8x1', '1x32', '1x16', '1x8', '64x4'),
    'ssn': ('8x32', '8x16', '8x8', '8x4', '8x2'),
    'kn': ('8x32', '64x4'),
}
# At digits scale: statistics of so many of 32 images.
STATISTICS = {
    'bn': (32, 16, 8, 4, 2, 1),
    'gn': (32,),
    'sn': (32, 16, 8, 4, 2, 1),
    'ssn': (32, 4, 2),
    'kn': (32, 16, 8, 4, 2, 1),
}
LAYER = {'bn': 'BatchNorm2d', 'gn': 'GroupNorm', 'sn': 'SN', 'ssn': 'SSN', 'kn': 'KN'}


def full_scale(norm, batch):
    gpus, images = batch.split('x')
    return f'imagenet/resnet50_{norm}_{gpus}xb{images}_imagenet.py'


def digits_scale(norm, images):
    return f'imagenet/resnet18-w32_{norm}_{32 // images}xb{images}_digits.py'


def digits_layer(norm, images):
    return 'GhostBN' if norm == 'bn' and images < 32 else LAYER[norm]


# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED: dict[str, dict[str, dict[str, int]]] = {
    **{
        full_scale(norm, batch): {'backbone': {LAYER[norm]: 53}}
        for norm, batches in BATCHES.items()
        for batch in batches
    },
    **{
        digits_scale(norm, images): {'backbone': {digits_layer(norm, images): 20}}
        for norm, settings in STATISTICS.items()
        for images in settings
    },
    'imagenet/resnet101_bn_8xb32_imagenet.py': {'backbone': {'BatchNorm2d': 104}},
    # IBN at one norm of each block of three stages: 3 + 4 + 6, and 3 + 4 + 23.
    'imagenet/resnet50_ibn-a_8xb32_imagenet.py': {'backbone': {'IBN': 13, 'BatchNorm2d': 40}},
    'imagenet/resnet101_ibn-a_8xb32_imagenet.py': {'backbone': {'IBN': 30, 'BatchNorm2d': 74}},
    'imagenet/resnet18-w32_ibn-a_1xb32_digits.py': {'backbone': {'IBN': 6, 'BatchNorm2d': 14}},
    # An instance norm in the stem, and two after additions.
    'imagenet/resnet18-w32_ibn-b_1xb32_digits.py': {'backbone': {'IBN': 3, 'BatchNorm2d': 19}},
}

# At full scale → at digits scale, with statistics of as many images.
TWINS: dict[str, str] = {
    **{
        full_scale(norm, batch): digits_scale(norm, int(batch.split('x')[1]))
        for norm, batches in BATCHES.items()
        for batch in batches
        if int(batch.split('x')[1]) in STATISTICS[norm]
    },
    # GN knows no other images.
    **{full_scale('gn', batch): digits_scale('gn', 32) for batch in BATCHES['gn']},
    **{
        f'imagenet/{model}_ibn-a_8xb32_imagenet.py': 'imagenet/resnet18-w32_ibn-a_1xb32_digits.py'
        for model in ('resnet50', 'resnet101')
    },
    'imagenet/resnet101_bn_8xb32_imagenet.py': digits_scale('bn', 32),
}

# What may differ between the two, by patterns on dotted names.
WHITELIST: tuple[str, ...] = (
    # Data root and classes.
    *('*_dataloader.dataset.type', '*_dataloader.dataset.data_root'),
    *('*_dataloader.dataset.split', '*_dataloader.dataset.data_prefix'),
    *('data_preprocessor.num_classes', 'model.head.num_classes'),
    # Image size; a crop of all of the picture, as a part of a digit may be another digit; no flip.
    *('*.pipeline.*.scale', '*.pipeline.*.crop_size', '*.train_pipeline.*.scale'),
    *('*.train_pipeline.*.crop_size', '*.crop_ratio_range', '*.aspect_ratio_range'),
    *('train_dataloader.dataset.pipeline.*.prob', 'custom_hooks.*.train_pipeline.*.prob'),
    # Depth and width, and GN's groups and the head's input with them.
    *('model.backbone.depth', 'model.backbone.stem_channels', 'model.backbone.base_channels'),
    *('model.head.in_channels', 'model.backbone.norm_cfg.num_groups'),
    # Schedule and learning rate; in 900 iterations a running average has to be a faster one.
    *('train_cfg.*', 'param_scheduler*', 'optim_wrapper.optimizer.lr'),
    *('auto_scale_lr.base_batch_size', 'custom_hooks.*.action_epoch'),
    'model.backbone.norm_cfg.momentum',
    # Dropout and jitter of a hundred epochs, which BN and GN do not have, set SN apart in nine.
    *('model.head.dropout_rate', '*.pipeline.*.alphastd'),
    *(f'*.pipeline.*.{name}' for name in ('brightness', 'contrast', 'saturation')),
    # One process stands for several GPUs, and their batch norm is GhostBN.
    *('*_dataloader.batch_size', 'train_dataloader.drop_last', '*_dataloader.num_workers'),
    *('model.backbone.norm_cfg.virtual_batch_size', 'model.backbone.norm_cfg.type'),
    # Bookkeeping of short runs that repeat.
    *('randomness.seed', 'default_hooks.checkpoint.max_keep_ckpts'),
)
