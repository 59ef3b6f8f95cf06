# Segmentor of the league, KN, at full scale, from ImageNet weights with BN (torchvision).
_base_ = ['../_base_/rows/practice_kn.py', '../_base_/scales/league_ade20k.py']

model = dict(backbone=_base_.backbone)
custom_hooks = [*_base_.custom_hooks, *_base_.row_hooks]
