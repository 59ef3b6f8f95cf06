# The rows of Table 6 at full scale.
_base_ = ['../datasets/kinetics_i3d-rows.py', '../schedules/kinetics_i3d-rows.py']
