# Cells under the microscope with their masks, tiles of 256 pixels: `tools/fetch_real.py cells`.
_base_ = './practice_trees.py'

data_root = 'data/real/cells/'
classes = ('hela', 'cho')
metainfo = dict(classes=classes)
ours = dict(data_root=data_root, metainfo=metainfo)
with_masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
train_pipeline = [
    step if step.type != 'LoadAnnotations' else with_masks for step in _base_.train_pipeline
]
test_pipeline = [
    step if step.type != 'LoadAnnotations' else with_masks for step in _base_.test_pipeline
]
train_pipeline[2].update(scale=(256, 256))
test_pipeline[1].update(scale=(256, 256))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **ours))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **ours))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
