# Trees in aerial photographs, in tiles of 256 pixels, at half of their size:
# `python tools/fetch_real.py trees`.
_base_ = './digits_detection.py'

data_root = 'data/real/trees/'
classes = ('tree',)
metainfo = dict(classes=classes)
# From above there is no up and down.
flip = dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal'])

train_pipeline = [*_base_.train_pipeline[:-1], flip, _base_.train_pipeline[-1]]
test_pipeline = _base_.test_pipeline
train_pipeline[2].update(scale=(128, 128))
test_pipeline[1].update(scale=(128, 128))

ours = dict(data_root=data_root, metainfo=metainfo)
train_dataloader = dict(dataset=dict(**ours, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**ours, pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
