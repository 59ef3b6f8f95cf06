# Table 6 with GhostBN, 8 clips a batch, at digits scale.
_base_ = ['../_base_/rows/i3d_ghost-bn.py', '../_base_/scales/digits_kinetics.py']

model = _base_.digits_model
model.backbone.init_cfg.checkpoint = 'work_dirs/resnet18-w32_bn_1xb32_digits/epoch_9.pth'
train_dataloader = dict(drop_last=True)  # batches divide into pairs
