# The classifiers of the table of batch noise: those of the other tables at half the width, with 128
# images for the gradient, and half of the pictures, so that they can overfit
# (docs/lab/batch_noise.md).
_base_ = './digits_imagenet.py'

digits_model = dict(
    backbone=dict(depth=18, stem_channels=16, base_channels=16),
    head=dict(num_classes=10, in_channels=128),
)
# Files are sorted by class.
train_dataloader = dict(
    batch_size=128, drop_last=True, dataset=dict(indices=list(range(0, 3200, 2)))
)
# 12 iterations an epoch, whose mean loss is logged.
train_cfg = dict(max_epochs=40, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=0.2))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=480)
default_hooks = dict(logger=dict(interval=12))
log_processor = dict(window_size=12)
auto_scale_lr = dict(base_batch_size=128)
