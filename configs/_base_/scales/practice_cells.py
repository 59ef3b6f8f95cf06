# Mask R-CNN on cells, of the table `practice-cells`, 2 images a batch.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../models/practice.py',
    '../datasets/practice_cells.py',
    '../schedules/practice.py',
    'mmdet::_base_/default_runtime.py',
    '../runtime.py',
]

model = dict(
    **_base_.practice_model,
    roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2)),
)
default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'), logger=dict(interval=10))
randomness = dict(seed=0)
