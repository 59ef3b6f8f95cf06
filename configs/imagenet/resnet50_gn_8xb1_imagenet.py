# ResNet-50 with GN on ImageNet, 8 GPUs x 1 image: published top-1 75.5.
_base_ = './resnet50_gn_8xb32_imagenet.py'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.003125))
auto_scale_lr = dict(base_batch_size=8)
