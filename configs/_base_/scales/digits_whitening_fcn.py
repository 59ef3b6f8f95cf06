# The segmentors of the table of whitening, 2 images a batch, with GN in both heads, so that rows
# differ in the backbone alone. A third of docs/segmentation.md's iterations.
_base_ = [
    '../models/fcn_r18-d8-w32_digits.py',
    '../datasets/digits_ade.py',
    '../schedules/digits_segmentation.py',
    'mmseg::_base_/default_runtime.py',
    '../runtime.py',
]

norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', prefix='backbone.')),
    decode_head=dict(norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg),
)
train_cfg = dict(max_iters=800, val_interval=800)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=800)
randomness = dict(seed=0)
