# The rows of Table 6 at digits scale.
_base_ = [
    '../models/digits-scale_i3d.py',
    '../datasets/digits-scale_kinetics_i3d-rows.py',
    '../schedules/digits-scale_kinetics_i3d-rows.py',
]
