# ResNet-50 with BN on ImageNet, 8 GPUs x 2 images: published top-1 65.3.
_base_ = './resnet50_bn_8xb32_imagenet.py'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=0.00625))
auto_scale_lr = dict(base_batch_size=16)
