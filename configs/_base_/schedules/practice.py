# A fine-tuning as short as two CPU cores allow: a fifth of the digits' rate, 12 epochs.
_base_ = './digits_detection.py'

train_cfg = dict(max_epochs=12, val_interval=12)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=40)
param_scheduler[1].update(T_max=12)
