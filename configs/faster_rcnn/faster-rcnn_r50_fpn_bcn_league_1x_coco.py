# Detector of the league, BCN, at full scale.
_base_ = ['../_base_/rows/league_bcn.py', '../_base_/scales/league_coco.py']

model = dict(backbone=_base_.backbone)
model['backbone'].init_cfg = _base_.weights
