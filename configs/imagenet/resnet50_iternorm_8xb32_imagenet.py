# ResNet-50 with IterNorm on ImageNet, 8 GPUs x 32 images: the backbone of its rows in the league.
_base_ = [
    '../_base_/rows/resnet_bn.py',
    '../_base_/rows/league_iternorm.py',
    '../_base_/scales/imagenet.py',
]

model = dict(backbone=_base_.backbone)
