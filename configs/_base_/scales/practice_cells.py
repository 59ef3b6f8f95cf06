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
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, fc_out_channels=256, num_classes=2),
        mask_roi_extractor=dict(out_channels=128),
        mask_head=dict(in_channels=128, conv_out_channels=64, num_classes=2),
    ),
)
# From 24 pixels on: most cells are of 19 to 34.
model['rpn_head'].update(anchor_generator=dict(scales=[6]))
default_hooks = dict(checkpoint=dict(type='ResumableCheckpointHook'), logger=dict(interval=10))
randomness = dict(seed=0)
