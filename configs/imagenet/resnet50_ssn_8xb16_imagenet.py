# ResNet-50 with SSN on ImageNet, 8 GPUs x 16 images: published top-1 77.0.
_base_ = './resnet50_ssn_8xb32_imagenet.py'

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=0.05))
auto_scale_lr = dict(base_batch_size=128)
