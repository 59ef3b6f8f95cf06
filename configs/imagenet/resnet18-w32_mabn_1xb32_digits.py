# MABN on digits: the backbone of its rows in the league.
_base_ = [
    '../_base_/rows/resnet_bn.py',
    '../_base_/rows/league_mabn.py',
    '../_base_/scales/digits_imagenet.py',
]

model = _base_.digits_model
model.backbone.update(_base_.backbone)
model.backbone.norm_cfg.window = 1  # 32 images are one batch
