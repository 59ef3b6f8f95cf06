# FRN on digits: the backbone of its rows in the league.
_base_ = [
    '../_base_/rows/resnet_bn.py',
    '../_base_/rows/league_frn.py',
    '../_base_/scales/digits_imagenet.py',
]

model = _base_.digits_model
model.backbone.update(_base_.backbone)
