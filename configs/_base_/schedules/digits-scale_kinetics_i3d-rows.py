# Table 6 at digits scale: 10 epochs of 800 clips, on 1 process, with warm-up and cosine. The head,
# which starts from nothing, learns five times as fast. What was tried, with BN alone:
# docs/lab/video.md.
_base_ = './kinetics_i3d-rows.py'

train_cfg = dict(max_epochs=10, val_interval=5)
optim_wrapper = dict(
    optimizer=dict(lr=0.02),
    paramwise_cfg=dict(custom_keys={'cls_head': dict(lr_mult=5.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=10, end=10, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=5))
randomness = dict(seed=0)
