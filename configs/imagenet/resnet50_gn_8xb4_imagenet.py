# ResNet-50 with GN on ImageNet, 8 GPUs x 4 images: published top-1 75.8.
_base_ = './resnet50_gn_8xb32_imagenet.py'

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.0125))
auto_scale_lr = dict(base_batch_size=32)
