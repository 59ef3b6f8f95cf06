# Table 6 at digits scale: 8 epochs of 800 clips, on 1 process, with warm-up and cosine. The head,
# which starts from nothing, learns five times as fast. What was tried, with BN alone:
# docs/lab/video.md.
_base_ = './kinetics_i3d-rows.py'

train_cfg = dict(max_epochs=8, val_interval=4)
optim_wrapper = dict(
    optimizer=dict(lr=0.02),
    paramwise_cfg=dict(custom_keys={'cls_head': dict(lr_mult=5.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=8, end=8, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=4))
randomness = dict(seed=0)
