"""The rows of Table 6 and others of I3D: norms, and twins at digits scale."""

R18, R50 = 20, 53  # norms of the backbone
LAYERS = {
    'bn': 'BatchNorm3d',
    'gn': 'GroupNorm',
    'sn': 'SN',
    'ssn': 'SSN',
    'kn': 'KN',
    'ghost-bn': 'GhostBN',
}
CLIPS = (8, 4)


def full_scale(norm, clips):
    return f'i3d/i3d_r50_{norm}_8xb{clips}_kinetics.py'


def digits_scale(norm, clips):
    return f'i3d/i3d_r18-w32_{norm}_1xb{clips}_digits.py'


# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED: dict[str, dict[str, dict[str, int]]] = {
    make(norm, clips): {'backbone': {layer: norms}}
    for norm, layer in LAYERS.items()
    for make, norms in ((full_scale, R50), (digits_scale, R18))
    for clips in CLIPS
}
# IBN at the first norm of each block of three stages.
for _clips in CLIPS:
    EXPECTED[full_scale('ibn-a', _clips)] = {'backbone': {'IBN': 13, 'BatchNorm3d': R50 - 13}}
    EXPECTED[digits_scale('ibn-a', _clips)] = {'backbone': {'IBN': 6, 'BatchNorm3d': R18 - 6}}

# At full scale → at digits scale.
TWINS = {
    full_scale(norm, clips): digits_scale(norm, clips)
    for norm in (*LAYERS, 'ibn-a')
    for clips in CLIPS
}

# What may differ between the two, by patterns on dotted names.
WHITELIST = (
    # The data, and that the process itself reads them.
    '*_dataloader.dataset.data_root',
    '*_dataloader.num_workers',
    '*_dataloader.persistent_workers',
    'model.cls_head.num_classes',
    # A quarter of the frames, over half of their time, and their size.
    '*_dataloader.dataset.pipeline.1.clip_len',
    '*_dataloader.dataset.pipeline.1.frame_interval',
    'train_dataloader.dataset.pipeline.3.scale_range',
    'train_dataloader.dataset.pipeline.4.size',
    '*_dataloader.dataset.pipeline.3.scale',
    'val_dataloader.dataset.pipeline.4.crop_size',
    # Depth and width, and GN's groups and the head's input with them; kernels over time.
    'model.backbone.depth',
    'model.backbone.base_channels',
    'model.backbone.inflate',
    'model.backbone.conv1_kernel',
    'model.backbone.conv1_stride_t',
    'model.cls_head.in_channels',
    'model.backbone.norm_cfg.num_groups',
    # Schedule and learning rate; in 800 iterations a running average has to be a faster one.
    'train_cfg.max_epochs',
    'train_cfg.val_interval',
    'default_hooks.checkpoint.interval',
    'param_scheduler',
    'optim_wrapper.optimizer.lr',
    'optim_wrapper.paramwise_cfg*',  # the head's rate
    'model.cls_head.dropout_ratio',
    'auto_scale_lr.base_batch_size',
    'randomness',
    'model.backbone.norm_cfg.momentum',
    # The initial weights, and with them the scale of the pixels and SN's released statistics.
    'model.backbone.init_cfg.*',
    'model.data_preprocessor.*',
    'model.backbone.norm_cfg.released_statistics',
)
