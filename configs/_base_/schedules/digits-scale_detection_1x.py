# The 1x schedule of the rows of detection at digits scale: 1 epoch of 780 iterations (the 40
# pictures without a digit are left out, as mmdet does), with drops at the same fractions, 8/12 and
# 11/12. The learning rate is that of full scale, for 2 images instead of 16:
# docs/lab/reproduce_pilot.md.
_base_ = './detection_1x.py'

train_cfg = dict(max_epochs=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=780, milestones=[520, 715], gamma=0.1),
]
# 1 process x 2 images
auto_scale_lr = dict(base_batch_size=2)
randomness = dict(seed=0)
