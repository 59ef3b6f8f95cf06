# Detector of the league, SW, at full scale.
_base_ = ['../_base_/rows/league_sw.py', '../_base_/scales/league_coco.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = _base_.weights
