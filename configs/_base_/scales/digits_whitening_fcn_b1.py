# The same at 1 image a batch: as many images, half the learning rate, a warm-up of as many images.
_base_ = './digits_whitening_fcn.py'

train_dataloader = dict(batch_size=1)
train_cfg = dict(max_iters=1600, val_interval=1600)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=100)
param_scheduler[1].update(begin=100, end=1600)
auto_scale_lr = dict(base_batch_size=1)
