# Table 6, row SN, 4 clips a batch, at digits scale. The rate follows the batch.
_base_ = './i3d_r18-w32_sn_1xb8_digits.py'

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=_base_.optim_wrapper.optimizer.lr / 2))
auto_scale_lr = dict(base_batch_size=4)
