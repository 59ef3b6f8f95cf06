# Kinetics-400 as Table 6's rows read it; docs/real_data.md shows the folders.
#
# Published with the table: 32 frames at interval 2. Recalled, of the Non-local and Group
# Normalization papers: the short side is drawn from 256 to 320, crops of 224, flips; a test takes
# 10 clips a video, spread evenly, and averages their softmax. Unknown: the size in the test; here
# the whole picture at a short side of 256. While it trains: one clip and its centre. A video that
# is too short is repeated, as mmaction2 does.
data_root = 'data/kinetics400/'
clip = dict(type='SampleFrames', clip_len=32, frame_interval=2, out_of_bound_opt='loop')
decoded = [dict(type='PyAVInit'), dict(type='PyAVDecode')]
packed = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]

train_pipeline = [
    decoded[0],
    dict(**clip, num_clips=1),
    decoded[1],
    dict(type='RandomRescale', scale_range=(256, 320)),
    dict(type='RandomCrop', size=224),
    dict(type='Flip', flip_ratio=0.5),
    *packed,
]
val_pipeline = [
    decoded[0],
    dict(**clip, num_clips=1, test_mode=True),
    decoded[1],
    dict(type='Resize', scale=(-1, 256)),
    dict(type='CenterCrop', crop_size=224),
    *packed,
]
test_pipeline = [
    decoded[0],
    dict(**clip, num_clips=10, test_mode=True),
    decoded[1],
    dict(type='Resize', scale=(-1, 256)),
    *packed,
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='VideoDataset',
        data_root=data_root,
        ann_file='kinetics400_train_list_videos.txt',
        data_prefix=dict(video='videos_train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoDataset',
        data_root=data_root,
        ann_file='kinetics400_val_list_videos.txt',
        data_prefix=dict(video='videos_val'),
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
# The 10 clips of a video are a batch.
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoDataset',
        data_root=data_root,
        ann_file='kinetics400_val_list_videos.txt',
        data_prefix=dict(video='videos_val'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)

val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
