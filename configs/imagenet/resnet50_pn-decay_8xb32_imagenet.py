# ResNet-50 with PN and gamma decay on ImageNet, 8 GPUs x 32 images: the strength is of BN's
# statistics of 32.
_base_ = './resnet50_pn_8xb32_imagenet.py'

custom_hooks = [*_base_.custom_hooks, dict(type='GammaDecayHook', samples=32)]
