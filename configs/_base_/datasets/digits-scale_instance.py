# The same pictures with the masks of their digits, as mmdet's COCO recipe for Mask R-CNN has it.
_base_ = './digits-scale_detection.py'

with_masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
train_pipeline = [
    step if step.type != 'LoadAnnotations' else with_masks for step in _base_.train_pipeline
]
test_pipeline = [
    step if step.type != 'LoadAnnotations' else with_masks for step in _base_.test_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
