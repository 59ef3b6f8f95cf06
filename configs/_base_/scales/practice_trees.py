# Detectors of trees, of the table `practice-trees`, 2 images a batch.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../models/practice.py',
    '../datasets/practice_trees.py',
    '../schedules/practice.py',
    'mmdet::_base_/default_runtime.py',
    '../runtime.py',
]

model = dict(
    **_base_.practice_model,
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, fc_out_channels=256, num_classes=1),
    ),
)
# From 12 pixels on: half of the trees are smaller than 20.
model['rpn_head'].update(anchor_generator=dict(scales=[3]))
default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'), logger=dict(interval=10))
randomness = dict(seed=0)
