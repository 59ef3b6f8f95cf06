"""The rows of the tables of batch noise."""

IMAGES = (2, 8, 32, 128)


def classifier(row: str) -> str:
    """The config at digits scale."""
    return f'imagenet/resnet18-w16_{row}_batch-noise_digits.py'


def detector(row: str, images: int) -> str:
    """The config at so many images a batch."""
    suffix = '' if images == 2 else '_b1'
    return f'faster_rcnn/faster-rcnn_r18-w32_fpn_{row}_batch-noise{suffix}_digits.py'


# Row → (norm type, arguments, M of the gamma decay).
CLASSIFIERS: dict[str, tuple[str, dict, int | None]] = {
    'gn': ('GroupNorm', {'num_groups': 8}, None),
    'bn': ('BatchNorm2d', {}, None),
    **{f'bn-m{m}': ('GhostBN', {'virtual_batch_size': m}, None) for m in IMAGES[:-1]},
    'pn': ('PN', {}, None),
}
for _m in IMAGES:
    _group = {} if _m == 128 else {'virtual_batch_size': _m}
    CLASSIFIERS[f'pn-decay-m{_m}'] = ('PN', {}, _m)
    _drawn = {'noise': 'both', 'samples': _m, **_group}
    CLASSIFIERS[f'pn-synthetic-m{_m}'] = ('PN', _drawn, None)
    for _noise in ('mean', 'var'):
        CLASSIFIERS[f'pn-{_noise}-m{_m}'] = ('PN', {'noise': _noise, **_group}, None)

# (row, images a batch) → M of the gamma decay.
DETECTORS: dict[tuple[str, int], int | None] = {}
for _images in (2, 1):
    DETECTORS['pn', _images] = None
    DETECTORS |= {(f'pn-decay-m{m}', _images): m for m in (_images, 32)}


def on_coco(row: str, images: int) -> str:
    """The config at full scale, at so many images per GPU."""
    suffix = '' if images == 2 else '_b1'
    return f'faster_rcnn/faster-rcnn_r50_fpn_{row}{suffix}_1x_coco.py'


FULL = {name: f'imagenet/resnet50_{name}_8xb32_imagenet.py' for name in ('pn', 'pn-decay')}

# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED: dict[str, dict[str, dict[str, int]]] = {
    **{classifier(row): {'backbone': {norm: 20}} for row, (norm, *_) in CLASSIFIERS.items()},
    **{detector(row, images): {'backbone': {'PN': 20}} for row, images in DETECTORS},
    **{name: {'backbone': {'PN': 53}} for name in FULL.values()},
    **{on_coco(row, images): {'backbone': {'PN': 53}} for row, images in DETECTORS},
    **{on_coco('bn', images): {'backbone': {'BatchNorm2d': 53}} for images in (2, 1)},
}

# At full scale → at digits scale.
TWINS: dict[str, str] = {
    FULL['pn']: classifier('pn'),
    FULL['pn-decay']: classifier('pn-decay-m32'),
    'imagenet/resnet50_bn_8xb32_imagenet.py': classifier('bn-m32'),
    'imagenet/resnet50_gn_8xb32_imagenet.py': classifier('gn'),
}

# What may differ between the two, by patterns on dotted names.
WHITELIST: tuple[str, ...] = (
    # Data root and classes; half of the pictures.
    *('*_dataloader.dataset.type', '*_dataloader.dataset.data_root'),
    *('*_dataloader.dataset.split', '*_dataloader.dataset.data_prefix'),
    *('data_preprocessor.num_classes', 'model.head.num_classes'),
    'train_dataloader.dataset.indices',
    # Image size; a crop of all of the picture, as a part of a digit may be another digit; no flip.
    *('*.pipeline.*.scale', '*.pipeline.*.crop_size'),
    *('*.crop_ratio_range', '*.aspect_ratio_range', 'train_dataloader.dataset.pipeline.*.prob'),
    # Depth and width, and GN's groups and the head's input with them.
    *('model.backbone.depth', 'model.backbone.stem_channels', 'model.backbone.base_channels'),
    *('model.head.in_channels', 'model.backbone.norm_cfg.num_groups'),
    # Schedule, learning rate and batch.
    *('train_cfg.*', 'param_scheduler*', 'optim_wrapper.optimizer.lr'),
    'auto_scale_lr.base_batch_size',
    *('*_dataloader.batch_size', 'train_dataloader.drop_last', '*_dataloader.num_workers'),
    # BN of 32 images a GPU is GhostBN here.
    *('model.backbone.norm_cfg.virtual_batch_size', 'model.backbone.norm_cfg.type'),
    # Bookkeeping of short runs that repeat; a logged loss is the mean of an epoch.
    *('randomness.seed', 'default_hooks.checkpoint.max_keep_ckpts'),
    'default_hooks.logger.interval',
)
