# SN from BN of the table `practice-trees`, trees, 1 image a batch.
_base_ = [
    '../_base_/rows/practice_sn-bn.py',
    '../_base_/scales/practice_trees_b1.py',
]

model = dict(backbone=_base_.backbone)
