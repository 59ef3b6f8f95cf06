# The same, twice as long: 180k iterations with drops at 120k and 160k are 24.6 epochs; 24 here.
_base_ = './detection_1x.py'

train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=24, milestones=[16, 22], gamma=0.1),
]
