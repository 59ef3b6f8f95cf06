# Table 6, row GN, 8 GPUs x 4 clips, at full scale. The rate follows the batch.
_base_ = './i3d_r50_gn_8xb8_kinetics.py'

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=32)
