"""The rows of the published segmentation tables: norms, and twins at digits scale."""

R18, R50 = 20, 53  # norms of the backbone


def fcn(norms: int, norm: str) -> dict[str, dict[str, int]]:
    """The same norm everywhere."""
    return {'backbone': {norm: norms}, 'decode_head': {norm: 1}, 'auxiliary_head': {norm: 1}}


def ibn(**backbone: int) -> dict[str, dict[str, int]]:
    """Norms of a backbone; heads with SyncBN."""
    return fcn(0, 'SyncBatchNorm') | {'backbone': backbone}


LAYERS = {'syncbn': 'SyncBatchNorm', 'gn': 'GroupNorm', 'sn': 'SN'}
# a: SyncIBN in each block of three stages. b: IBN without a BN half, which is instance norm, in the
# stem and after the addition of the last block of two stages.
IBN = {
    'syncbn': {R50: ibn(SyncBatchNorm=R50), R18: ibn(SyncBatchNorm=R18)},
    'ibn-a': {
        R50: ibn(SyncBatchNorm=R50 - 13, SyncIBN=13),
        R18: ibn(SyncBatchNorm=R18 - 6, SyncIBN=6),
    },
    'ibn-b': {
        R50: ibn(SyncBatchNorm=R50 - 1, IBN=3),
        R18: ibn(SyncBatchNorm=R18 - 1, IBN=3),
    },
    'isw': {
        R50: ibn(SyncBatchNorm=R50 - 1, ISW=3),
        R18: ibn(SyncBatchNorm=R18 - 1, ISW=3),
    },
}

# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED: dict[str, dict[str, dict[str, int]]] = {}
# At full scale → at digits scale.
TWINS: dict[str, str] = {}

for _norm, _layer in LAYERS.items():
    for _data, _digits in {'ade20k': 'ade', 'cityscapes': 'cityscapes'}.items():
        _full = f'fcn/fcn_r50-d8_{_norm}_{_data}.py'
        TWINS[_full] = f'fcn/fcn_r18-d8-w32_{_norm}_table5_digits-{_digits}.py'
        EXPECTED |= {_full: fcn(R50, _layer), TWINS[_full]: fcn(R18, _layer)}
    EXPECTED[f'fcn/fcn_r50-d8_{_norm}_cityscapes_test-server.py'] = fcn(R50, _layer)
for _norm, _layers in IBN.items():
    for _data, _digits in {'cityscapes': 'cityscapes-day', 'gta5': 'cityscapes-night'}.items():
        _full = f'ibn_gta5/fcn_r50-d8_{_norm}_table6_{_data}.py'
        TWINS[_full] = f'ibn_gta5/fcn_r18-d8-w32_{_norm}_table6_digits-{_digits}.py'
        EXPECTED |= {_full: _layers[R50], TWINS[_full]: _layers[R18]}

# What may differ between the two, by patterns on dotted names.
WHITELIST = (
    # The data: where they are, their classes, their files' names, and ADE20K's way to count, which
    # mmseg's class of it has built in.
    '*_dataloader.dataset.type',
    '*_dataloader.dataset.data_root',
    '*_dataloader.dataset.data_prefix.*',
    '*_dataloader.dataset.ann_file',
    '*_dataloader.dataset.img_suffix',
    '*_dataloader.dataset.seg_map_suffix',
    '*_dataloader.dataset.metainfo',
    '*_dataloader.dataset.reduce_zero_label',
    'model.*_head.num_classes',
    # They are read by the process itself: the pictures are small and the machine has two cores.
    '*_dataloader.num_workers',
    '*_dataloader.persistent_workers',
    # The images' size, and what a batch is padded to.
    '*_dataloader.dataset.pipeline.*.scale',
    'train_dataloader.dataset.pipeline.2.scales',
    '*_dataloader.dataset.pipeline.*.max_size',
    'train_dataloader.dataset.pipeline.3.crop_size',
    'tta_pipeline.1.transforms',
    'model.data_preprocessor.size',
    # A mirrored digit is another sign.
    'train_dataloader.dataset.pipeline.[34].prob',
    # Depth and width of the backbone; after it the heads' width, and the number of groups.
    'model.backbone.depth',
    'model.backbone.stem_channels',
    'model.backbone.base_channels',
    'model.*_head.in_channels',
    'model.*_head.channels',
    'model.*.norm_cfg.num_groups',
    # The schedule.
    'train_cfg.max_iters',
    'train_cfg.val_interval',
    'param_scheduler.0.end',
    'optim_wrapper.optimizer.lr',
    'optim_wrapper.paramwise_cfg*',  # the heads' rate
    'auto_scale_lr.base_batch_size',
    'default_hooks.checkpoint.interval',
    'custom_hooks.2.begin',
    'custom_hooks.2.num_batches',
    'randomness',
    # The initial weights, and with them the scale of the pixels and SN's released statistics; its
    # momentum would need more iterations than the digits have.
    'model.backbone.init_cfg.*',
    'model.data_preprocessor.mean',
    'model.data_preprocessor.std',
    'model.data_preprocessor.bgr_to_rgb',
    'model.*.norm_cfg.released_statistics',
    'model.*.norm_cfg.momentum',
)
