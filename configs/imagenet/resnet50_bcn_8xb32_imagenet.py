# ResNet-50 with BCN on ImageNet, 8 GPUs x 32 images: the backbone of its rows in the league.
_base_ = [
    '../_base_/rows/resnet_bn.py',
    '../_base_/rows/league_bcn.py',
    '../_base_/scales/imagenet.py',
]

model = dict(backbone=_base_.backbone)
