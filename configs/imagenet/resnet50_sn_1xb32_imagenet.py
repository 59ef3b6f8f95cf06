# ResNet-50 with SN on ImageNet, 1 GPU x 32 images: published top-1 76.6.
_base_ = './resnet50_sn_8xb32_imagenet.py'

optim_wrapper = dict(optimizer=dict(lr=0.0125))
auto_scale_lr = dict(base_batch_size=32)
