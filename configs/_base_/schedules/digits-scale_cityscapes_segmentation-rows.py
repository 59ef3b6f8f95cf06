# Table 5 on Cityscapes at digits scale: 800 iterations of 1 process x 2 images. No run has
# shown yet that as few suffice (docs/reproduce_pilot.md).
_base_ = './cityscapes_segmentation-rows.py'

train_cfg = dict(max_iters=800, val_interval=800)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=800)
auto_scale_lr = dict(base_batch_size=2)
default_hooks = dict(checkpoint=dict(interval=400))
randomness = dict(seed=0)
