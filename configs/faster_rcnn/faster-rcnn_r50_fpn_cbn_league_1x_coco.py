# Detector of the league, CBN, at full scale, from ImageNet weights with BN (torchvision).
_base_ = ['../_base_/rows/league_cbn.py', '../_base_/scales/league_coco.py']

model = dict(backbone=_base_.backbone)
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
