# Detector of the league, BN, at full scale, from ImageNet weights with BN (torchvision).
_base_ = ['../_base_/rows/practice_bn.py', '../_base_/scales/league_coco.py']

model = dict(backbone=_base_.backbone)
