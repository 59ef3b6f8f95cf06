# Table 6 with GhostBN, 8 GPUs x 8 clips, at full scale.
# From ImageNet weights with BN (torchvision).
_base_ = ['../_base_/rows/i3d_ghost-bn.py', '../_base_/scales/kinetics.py']

train_dataloader = dict(drop_last=True)  # batches divide into pairs
