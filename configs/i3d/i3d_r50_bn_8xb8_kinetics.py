# Table 6, row BN, 8 GPUs x 8 clips, at full scale. Recipe, and what is unknown of it:
_base_ = ['../_base_/rows/i3d_bn.py', '../_base_/scales/kinetics.py']
