# ResNet-50 with BN on ImageNet, 1 GPU x 8 images: published top-1 75.4.
_base_ = './resnet50_bn_8xb32_imagenet.py'

train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=0.003125))
auto_scale_lr = dict(base_batch_size=8)
