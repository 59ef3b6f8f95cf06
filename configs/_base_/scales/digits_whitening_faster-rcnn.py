# The detectors of the table of whitening: the demo's, 2 images a batch, without a norm after the
# backbone, so that rows differ in the backbone alone. Half of the pictures, once.
_base_ = [
    '../models/faster-rcnn_r18-w32_fpn_digits.py',
    '../datasets/digits_detection.py',
    '../schedules/digits_detection.py',
    'mmdet::_base_/default_runtime.py',
    '../runtime.py',
]

model = dict(backbone=dict(init_cfg=dict(type='Pretrained', prefix='backbone.')))
train_dataloader = dict(dataset=dict(indices=800))
default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'))
randomness = dict(seed=0)
