# GW on digits: the backbone of its rows in the table of whitening.
_base_ = [
    '../_base_/rows/resnet_bn.py',
    '../_base_/rows/whitening_gw.py',
    '../_base_/scales/digits_imagenet.py',
]

model = _base_.digits_model
model.backbone.update(_base_.backbone)
