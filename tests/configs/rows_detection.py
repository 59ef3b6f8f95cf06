"""The rows of the published detection tables: norms, and twins at digits scale."""

R18, R50 = 20, 53  # norms of the backbone

# Row → norms by part. FPN: four lateral and four output convolutions; four convolutions in each of
# the heads that have norms. Backbones but IBN's have one norm type: (its name, the other parts).
FASTER = {
    'frozen-bn': ('BatchNorm2d', {}),
    'frozen-bn_gn-head': ('BatchNorm2d', {'neck': {'GroupNorm': 8}, 'roi_head': {'GroupNorm': 4}}),
    'frozen-bn_sn-head': ('BatchNorm2d', {'neck': {'SN': 8}}),
    'gn-gn': ('GroupNorm', {'neck': {'GroupNorm': 8}, 'roi_head': {'GroupNorm': 4}}),
    'sn-sn': ('SN', {'neck': {'SN': 8}}),
}


def heads(norm: str) -> dict[str, dict[str, int]]:
    """FPN, box head and mask head of Mask R-CNN."""
    return {'neck': {norm: 8}, 'roi_head': {norm: 8}}


MASK = {
    'frozen-bn': ('BatchNorm2d', {}),
    'frozen-bn_gn-head': ('BatchNorm2d', heads('GroupNorm')),
    'frozen-bn_sn-head': ('BatchNorm2d', heads('SN')),
    'gn-gn': ('GroupNorm', heads('GroupNorm')),
    'gn-sn': ('GroupNorm', heads('SN')),
    'sn-sn': ('SN', heads('SN')),
    'ssn-ssn': ('SSN', heads('SSN')),
    'kn-kn': ('KN', heads('KN')),
    'ibn-a': ('IBN', {}),
}
# At 1 image a batch.
MASK |= {f'{row}_b1': MASK[row] for row in ('sn-sn', 'ssn-ssn', 'kn-kn', 'ibn-a')}
# IBN-a: the first norm of each block of three stages.
IBN = {R18: {'IBN': 6, 'BatchNorm2d': R18 - 6}, R50: {'IBN': 13, 'BatchNorm2d': R50 - 13}}

# Config → {part of the model: {norm type: layers}}; a part that is not named has no norm.
EXPECTED: dict[str, dict[str, dict[str, int]]] = {}
# At full scale → at digits scale.
TWINS: dict[str, str] = {}

for _model, _rows, _length in (('faster', FASTER, '1x'), ('mask', MASK, '2x')):
    for _row, (_norm, _parts) in _rows.items():
        _full, _digits = (
            f'{_model}_rcnn/{_model}-rcnn_{_net}_fpn_{_row}_{_length}_{_data}.py'
            for _net, _data in (('r50', 'coco'), ('r18-w32', 'digits'))
        )
        TWINS[_full] = _digits
        for _name, _norms in ((_full, R50), (_digits, R18)):
            _backbone = IBN[_norms] if _norm == 'IBN' else {_norm: _norms}
            EXPECTED[_name] = {'backbone': _backbone, **_parts}

# What may differ between the two, by patterns on dotted names.
WHITELIST = (
    # The data: where they are, and their classes.
    '*_dataloader.dataset.data_root',
    '*_dataloader.dataset.data_prefix.img',
    '*_dataloader.dataset.ann_file',
    '*_evaluator.ann_file',
    '*_dataloader.dataset.metainfo',
    'model.roi_head.*_head.num_classes',
    # They are read by the process itself: the pictures are small and the machine has two cores.
    '*_dataloader.num_workers',
    '*_dataloader.persistent_workers',
    # A mirrored digit is another sign.
    'train_dataloader.dataset.pipeline.3.prob',
    # The images' size, and with it the objects' size and how many RoIs there can be.
    '*_dataloader.dataset.pipeline.*.scale',
    'model.rpn_head.anchor_generator.scales',
    'model.*_cfg.*.nms_pre',
    'model.*_cfg.*.max_per_img',
    'model.train_cfg.*.sampler.num',
    # Depth and width of the backbone; after it the width of FPN and heads, and how many groups.
    'model.backbone.depth',
    'model.backbone.stem_channels',
    'model.backbone.base_channels',
    'model.neck.*_channels',
    'model.rpn_head.*_channels',
    'model.roi_head.*_channels',
    'model.*.norm_cfg.num_groups',
    # The schedule: so short that a rate lasts less than an epoch, and is counted in iterations.
    'train_cfg.max_epochs',
    'train_cfg.val_interval',
    'param_scheduler.0.end',
    'param_scheduler.1.by_epoch',
    'param_scheduler.1.end',
    'param_scheduler.1.milestones',
    'auto_scale_lr.base_batch_size',
    'randomness',
    # The initial weights, and with them the scale of the pixels and SN's released statistics. SN's
    # momentum is that of thousands of iterations.
    'model.backbone.init_cfg.*',
    'model.data_preprocessor.mean',
    'model.data_preprocessor.std',
    'model.data_preprocessor.bgr_to_rgb',
    'model.*.norm_cfg.released_statistics',
    'model.*.norm_cfg.momentum',
)
