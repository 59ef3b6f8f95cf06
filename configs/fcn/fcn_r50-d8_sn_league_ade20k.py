# Segmentor of the league, SN, at full scale.
_base_ = ['../_base_/rows/league_sn.py', '../_base_/scales/league_ade20k.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = _base_.weights
