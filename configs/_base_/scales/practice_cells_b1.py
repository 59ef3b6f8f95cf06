# The same at 1 image a batch: as many images, half the learning rate, a warm-up of as many images.
_base_ = './practice_cells.py'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=80)
auto_scale_lr = dict(base_batch_size=1)
