# ResNet-50 with SSN on ImageNet, 8 GPUs x 2 images: published top-1 75.9.
_base_ = './resnet50_ssn_8xb32_imagenet.py'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=0.00625))
auto_scale_lr = dict(base_batch_size=16)
