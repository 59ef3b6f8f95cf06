# ResNet-50 with SSN on ImageNet, 8 GPUs x 4 images: published top-1 76.1.
_base_ = './resnet50_ssn_8xb32_imagenet.py'

train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.0125))
auto_scale_lr = dict(base_batch_size=32)
