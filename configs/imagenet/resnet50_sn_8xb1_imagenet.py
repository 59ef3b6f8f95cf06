# ResNet-50 with SN on ImageNet, 8 GPUs x 1 image: published top-1 75.0.
_base_ = './resnet50_sn_8xb32_imagenet.py'

# Released recipe: without BN, which is IN at one image in training, and noise in a test.
model = dict(backbone=dict(norm_cfg=dict(using_bn=False)))
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.003125))
auto_scale_lr = dict(base_batch_size=8)
