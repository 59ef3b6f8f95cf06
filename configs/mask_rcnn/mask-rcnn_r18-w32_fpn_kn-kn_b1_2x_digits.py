# Mask R-CNN+FPN, 2x schedule, KN/KN (in no table): 1 image a batch, at digits scale.
_base_ = './mask-rcnn_r18-w32_fpn_kn-kn_2x_digits.py'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=_base_.optim_wrapper.optimizer.lr / 2))
param_scheduler = _base_.one_image_param_scheduler
auto_scale_lr = dict(base_batch_size=1)
