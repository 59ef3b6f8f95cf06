# Table 6 at digits scale: steps at the same fractions of 10 epochs of 400 clips, on 1 process. The
# learning rate and the length were chosen on BN and GN alone (docs/lab/video.md).
_base_ = './kinetics_i3d-rows.py'

train_cfg = dict(max_epochs=10, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=10, milestones=[4, 8])
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=5))
randomness = dict(seed=0)
