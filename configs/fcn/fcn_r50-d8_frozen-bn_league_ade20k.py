# Segmentor of the league, frozen BN, at full scale, from ImageNet weights with BN (torchvision).
_base_ = ['../_base_/rows/practice_frozen-bn.py', '../_base_/scales/league_ade20k.py']

model = dict(backbone=_base_.backbone)
