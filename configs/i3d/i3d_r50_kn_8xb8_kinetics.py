# Table 6 with KN, 8 GPUs x 8 clips, at full scale.
# From ImageNet weights with BN (torchvision).
_base_ = ['../_base_/rows/i3d_kn.py', '../_base_/scales/kinetics.py']
