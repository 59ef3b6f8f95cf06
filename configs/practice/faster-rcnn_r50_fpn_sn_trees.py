# SN of the table `practice-trees`, trees, 2 images a batch.
_base_ = [
    '../_base_/rows/practice_sn.py',
    '../_base_/scales/practice_trees.py',
]

model = dict(backbone=_base_.backbone)
