# ResNet-50 with SN on ImageNet, 256 images for a gradient and 4 for statistics: published top-1
# 77.2. Not 64 GPUs x 4 images, but 8 GPUs x 32 images whose statistics are of each 4.
_base_ = './resnet50_sn_8xb32_imagenet.py'

model = dict(backbone=dict(norm_cfg=dict(virtual_batch_size=4)))
# An epoch's last batch does not divide by 4.
train_dataloader = dict(drop_last=True)
