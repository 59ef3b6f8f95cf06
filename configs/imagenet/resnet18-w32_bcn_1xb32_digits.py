# BCN on digits: the backbone of its rows in the league.
_base_ = [
    '../_base_/rows/resnet_bn.py',
    '../_base_/rows/league_bcn.py',
    '../_base_/scales/digits_imagenet.py',
]

model = _base_.digits_model
model.backbone.update(_base_.backbone)
model.backbone.norm_cfg.num_groups = 8
