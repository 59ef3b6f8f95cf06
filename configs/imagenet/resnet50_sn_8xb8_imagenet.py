# ResNet-50 with SN on ImageNet, 8 GPUs x 8 images: published top-1 76.7.
_base_ = './resnet50_sn_8xb32_imagenet.py'

train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=0.025))
auto_scale_lr = dict(base_batch_size=64)
