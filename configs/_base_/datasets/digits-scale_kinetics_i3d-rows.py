# Table 6's pipelines on digits that move: `python tools/make_digits.py --formats kinetics`.
#
# 8 frames at interval 4: a quarter of the published frames, over half of their time. Pictures of
# 64x64 pixels are scaled to 48. A crop leaves out a ninth of the side at most, so that most of the
# digit stays in it. The flip does no harm (docs/video.md).
_base_ = './kinetics_i3d-rows.py'

data_root = 'work_dirs/data/digits/kinetics/'

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=8, frame_interval=4)
train_pipeline[3].update(scale_range=(48, 54))
train_pipeline[4].update(size=48)
val_pipeline = _base_.val_pipeline
val_pipeline[1].update(clip_len=8, frame_interval=4)
val_pipeline[3].update(scale=(-1, 48))
val_pipeline[4].update(crop_size=48)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=8, frame_interval=4)
test_pipeline[3].update(scale=(-1, 48))

loading = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loading, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(**loading, dataset=dict(data_root=data_root, pipeline=val_pipeline))
test_dataloader = dict(**loading, dataset=dict(data_root=data_root, pipeline=test_pipeline))
