# IBN-Net's Table 6 at digits scale: 2400 iterations of 1 process x 2 images.
# The heads, which start from nothing, learn ten times as fast, or they need many more
# (docs/lab/reproduce_pilot.md). How that does in the light: docs/lab/light_pilot_tables.md.
_base_ = './ibn_segmentation-rows.py'

train_cfg = dict(max_iters=2400, val_interval=2400)
optim_wrapper = dict(
    optimizer=dict(lr=0.02),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.0)}),
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=2400)
auto_scale_lr = dict(base_batch_size=2)
default_hooks = dict(checkpoint=dict(interval=400))
randomness = dict(seed=0)
