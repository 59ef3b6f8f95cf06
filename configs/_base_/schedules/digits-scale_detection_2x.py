# The same, twice as long, with drops at 16/24 and 22/24.
_base_ = './digits-scale_detection_1x.py'

train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=1560, milestones=[1040, 1430], gamma=0.1),
]
# With 1 image a batch an epoch has twice the iterations.
one_image_param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=3120, milestones=[2080, 2860], gamma=0.1),
]
